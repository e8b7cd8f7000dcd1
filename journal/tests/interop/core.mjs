// Opens a core with the JavaScript package, takes steps, and says what it holds then.
//
// node core.mjs FOLDER STEPS, where STEPS is a file with { "seed": HEX, "manifest": 0 | 1, "encryptionKey": HEX | null,
//   "steps": [ { "append": [HEX, …] } | { "truncate": N } | { "clear": [FROM, TO] } | { "userData": [NAME, HEX | null] } ] }
// prints { "key", "length", "byteLength", "fork", "treeHash", "entries": [HEX | null, …], "userData": { NAME: HEX, … } }

import Hypercore from 'hypercore'
import crypto from 'hypercore-crypto'
import { readFileSync } from 'node:fs'

const { seed, manifest, encryptionKey, steps } = JSON.parse(readFileSync(process.argv[3]))
const keyPair = crypto.keyPair(Buffer.from(seed, 'hex'))
const options = { keyPair, compat: true }
if (manifest === 0) {
  options.manifest = { version: 0, signers: [{ publicKey: keyPair.publicKey }] }
}
if (encryptionKey) options.encryptionKey = Buffer.from(encryptionKey, 'hex')
const core = manifest === 0
  ? new Hypercore(process.argv[2], keyPair.publicKey, options)
  : new Hypercore(process.argv[2], options)
await core.ready()
// A journal's header holds no secret key.
core.setKeyPair(keyPair)

for (const step of steps) {
  if (step.append) await core.append(step.append.map((entry) => Buffer.from(entry, 'hex')))
  // To the length it has it would raise the fork.
  if (step.truncate < core.length) await core.truncate(step.truncate)
  if (step.clear) await core.clear(...step.clear)
  if (step.userData) await core.setUserData(step.userData[0], step.userData[1] && Buffer.from(step.userData[1], 'hex'))
}

const entries = []
for (let index = 0; index < core.length; index++) {
  if (!(await core.has(index))) {
    entries.push(null)
    continue
  }
  const entry = await core.get(index, { wait: false })
  // The package does not check what it reads; this does.
  const leaf = await core.core.tree.get(2 * index)
  const stored = await core.get(index, { wait: false, raw: true })
  if (!crypto.data(stored).equals(leaf.hash)) throw new Error(`entry ${index} is not the one in the tree`)
  entries.push(entry.toString('hex'))
}
console.log(JSON.stringify({
  key: core.key.toString('hex'),
  length: core.length,
  byteLength: core.byteLength,
  fork: core.fork,
  treeHash: (await core.treeHash()).toString('hex'),
  entries,
  userData: Object.fromEntries(core.core.header.userData.map(({ key, value }) => [key, value.toString('hex')]))
}))
await core.close()
