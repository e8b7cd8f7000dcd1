// Calls actions of Moleculer as often as it can: in this process, and in another one over its TCP transporter. What is off unless told
// (logger aside, which is on) stays off: no retry, breaker, bulkhead, deadline, metrics or traces.
//
// node caller.mjs, and then on standard input a line for each measurement: { "work": "local" | "remote", "callers", "seconds" }
// prints a line for each: { "calls", "seconds", "p50_us" }, the last of one caller only

import { fork } from 'node:child_process'
import { createInterface } from 'node:readline'
import { ServiceBroker } from 'moleculer'

const BODY = 'x'.repeat(512)
// Calls between two looks at the clock, of calls that take less than looking does.
const LOCAL_STEP = 100

const answerer = fork(new URL('answerer.mjs', import.meta.url))
const [port] = await new Promise((resolve, reject) => {
  answerer.once('message', message => resolve([message]))
  answerer.once('exit', code => reject(new Error(`the other node ended: ${code}`)))
})

const broker = new ServiceBroker({
  nodeID: 'caller',
  logger: false,
  transporter: {
    type: 'TCP',
    options: { udpDiscovery: false, urls: [`tcp://127.0.0.1:${port}/answerer`] }
  }
})
broker.createService({ name: 'here', actions: { echo: ctx => ctx.params.body } })
await broker.start()
await broker.waitForServices('there', 20_000)

async function measure ({ work, callers, seconds }) {
  const action = work === 'local' ? 'here.echo' : 'there.echo'
  const step = work === 'local' ? LOCAL_STEP : 1
  const times = []
  let calls = 0
  const start = performance.now()
  const late = () => performance.now() - start > seconds * 1000
  const caller = async () => {
    while (!late()) {
      const asked = performance.now()
      for (let call = 0; call < step; call++) {
        const answer = await broker.call(action, { body: BODY })
        if (answer.length !== BODY.length) throw new Error('another answer')
      }
      if (callers === 1) times.push((performance.now() - asked) / step)
      calls += step
    }
  }
  await Promise.all(Array.from({ length: callers }, caller))
  const took = (performance.now() - start) / 1000
  times.sort((a, b) => a - b)
  return { calls, seconds: took, p50_us: times.length > 0 ? times[times.length >> 1] * 1000 : null }
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await measure(JSON.parse(line))))
}
await broker.stop()
answerer.disconnect()
