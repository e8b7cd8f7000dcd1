// Does a work with a JavaScript package and says how long it took.
//
// node load.mjs FILE, where FILE holds { "package", "folder", "work", "count", "length", "writeSecondsMax" }
// prints { "entries", "seconds" }: what was done of it, and the time of the work alone

import { readFileSync } from 'node:fs'

const asked = JSON.parse(readFileSync(process.argv[2]))
const { default: Hypercore } = await import(asked.package)

const ENTRY_BYTES = 100
const WRITERS = 64
const BATCH = 1000

async function open () {
  const core = new Hypercore(asked.folder)
  await core.ready()
  return core
}

function entry (index) {
  const entry = Buffer.alloc(ENTRY_BYTES, 7)
  entry.writeUInt32LE(index)
  return entry
}

async function append (core, first) {
  await core.append(Array.from({ length: BATCH }, (_, part) => entry(first + part)))
}

let start
const late = () => performance.now() - start > asked.writeSecondsMax * 1000

// The same places as the program asks of the others.
function places (seed) {
  let at = BigInt(seed)
  return Array.from({ length: asked.count }, () => {
    at = BigInt.asUintN(64, at * 6364136223846793005n + 1442695040888963407n)
    return Number((at >> 33n) % BigInt(asked.length))
  })
}

async function read (core, index) {
  const entry = await core.get(index, { wait: false })
  if (entry.readUInt32LE() !== index) throw new Error(`entry ${index} is another one`)
}

const works = {
  async one_by_one (core) {
    let index = 0
    for (; index < asked.count && !late(); index++) await core.append(entry(index))
    return index
  },
  async writers (core) {
    const writer = async () => {
      let index = 0
      for (; index < asked.count / WRITERS && !late(); index++) await core.append(entry(index))
      return index
    }
    const done = await Promise.all(Array.from({ length: WRITERS }, writer))
    return done.reduce((sum, one) => sum + one, 0)
  },
  async batches (core) {
    let first = 0
    for (; first < asked.count && !late(); first += BATCH) await append(core, first)
    return first
  },
  async fill (core) {
    for (let first = 0; first < asked.count; first += BATCH) await append(core, first)
  },
  async at_random (core) {
    for (const index of asked.places) await read(core, index)
  },
  async in_order (core) {
    for (let index = 0; index < asked.count; index++) await read(core, index)
  },
  // Hashes every node and every entry.
  async verify (core) {
    // Bits aside, which only 11 looks at.
    const said = await core.core.audit({ bitfield: false })
    const wrong = said.treeNodes === undefined
      ? said.tree + said.blocks
      : said.droppedTreeNodes + said.droppedBlocks
    if (wrong > 0) throw new Error(`found wrong: ${JSON.stringify(said)}`)
  }
}

let seconds
let entries = asked.count
if (asked.work === 'open') {
  start = performance.now()
  const core = await open()
  seconds = (performance.now() - start) / 1000
  if (core.length !== asked.length) throw new Error(`it has ${core.length} entries`)
  await core.close()
} else {
  const core = await open()
  if (asked.work === 'at_random') {
    asked.places = places(1)
    await works.at_random(core)
    asked.places = places(2)
  }
  start = performance.now()
  entries = (await works[asked.work](core)) ?? asked.count
  seconds = (performance.now() - start) / 1000
  await core.close()
}
console.log(JSON.stringify({ entries, seconds }))
