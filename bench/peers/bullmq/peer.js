// What a NestJS team would use instead: a queue of BullMQ on Redis, and a worker that PATCHes with undici.
//
// node peer.js, and node peer.js worker for further workers; with API_BASE_URL, OAUTH2_*, REDIS_SOCKET, VECTORS (a file with one vector a line: float32, base64) and
// CONCURRENCY. It prints a line when it is ready, starts at a line on its standard input, and runs until it is stopped.
// The pending tasks are read once, in one page, and added to the queue in bulk; jobs are removed when they are done.

import { readFileSync } from 'node:fs'
import { once } from 'node:events'
import { Queue, Worker } from 'bullmq'
import { Pool, request } from 'undici'

const { env } = process
const concurrency = Number(env.CONCURRENCY)
const connection = { path: env.REDIS_SOCKET, maxRetriesPerRequest: null }
const vectors = readFileSync(env.VECTORS, 'latin1').trimEnd().split('\n')
const ADD_AT_ONCE = 1000

const basic = Buffer.from(`${env.OAUTH2_CLIENT_ID}:${env.OAUTH2_CLIENT_SECRET}`).toString('base64')
const answer = await request(env.OAUTH2_TOKEN_URL, {
  method: 'POST',
  headers: { authorization: `Basic ${basic}`, 'content-type': 'application/x-www-form-urlencoded' },
  body: 'grant_type=client_credentials',
})
const { access_token: token } = await answer.body.json()
const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' }
const api = new Pool(env.API_BASE_URL, { connections: concurrency })

function embedded(number) {
  const bytes = Buffer.from(vectors[number % vectors.length], 'base64')
  return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4)
}

async function patch(job) {
  const result = Array.from(embedded(job.data.number))
  const { statusCode, body } = await api.request({
    method: 'PATCH',
    path: `/api/ai-tasks/${job.data.id}`,
    headers,
    body: JSON.stringify({ state: 'succeeded', result }),
  })
  await body.dump()
  if (statusCode !== 200) throw new Error(`PATCH: ${statusCode}`)
}

const queue = new Queue('embeddings', { connection })
const worker = new Worker('embeddings', patch, { connection, concurrency })
worker.on('failed', (job, error) => console.error(`${job?.data.id}: ${error.message}`))
await Promise.all([queue.waitUntilReady(), worker.waitUntilReady()])

console.log('ready')
await once(process.stdin, process.argv[2] === 'worker' ? 'end' : 'data')
const page = await api.request({ method: 'GET', path: '/api/ai-tasks/pending', headers })
const tasks = await page.body.json()
const opts = { removeOnComplete: true, attempts: 3, backoff: { type: 'exponential', delay: 1000 } }
const jobs = tasks.map((task, number) => ({
  name: task.type,
  data: { id: task._id, text: task.content.text, model: task.content.model, number },
  opts,
}))
for (let at = 0; at < jobs.length; at += ADD_AT_ONCE) {
  await queue.addBulk(jobs.slice(at, at + ADD_AT_ONCE))
}
