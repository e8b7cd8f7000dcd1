// The other node: gives back what it is sent. Tells its parent the port, and ends with it.

import { ServiceBroker } from 'moleculer'

const broker = new ServiceBroker({
  nodeID: 'answerer',
  logger: false,
  transporter: { type: 'TCP', options: { udpDiscovery: false } }
})
broker.createService({ name: 'there', actions: { echo: ctx => ctx.params.body } })
await broker.start()
process.on('disconnect', () => process.exit())
process.send(broker.getLocalNodeInfo().port)
