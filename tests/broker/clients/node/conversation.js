// Uses a broker through amqplib. test_clients.py says what each of these programs does.
'use strict'

const amqp = require('amqplib')

const URL = `amqp://guest:guest@127.0.0.1:${process.argv[2]}/?heartbeat=10`
const QUEUE = 'amqplib'
const EXCHANGE = 'amqplib.x'

function say (...words) {
  console.log('-', ...words.map((word) => (typeof word === 'string' ? word : JSON.stringify(word))))
}

async function publish (connection, count) {
  const channel = await connection.createConfirmChannel()
  const returned = []
  channel.on('return', (message) => returned.push(message.fields.replyCode))
  for (let number = 0; number < count; number++) {
    channel.publish(EXCHANGE, `to.${number}`, Buffer.from(`${number}`), { headers: { number }, mandatory: true })
  }
  await channel.waitForConfirms()
  say('confirmed', count)
  channel.publish(EXCHANGE, 'nobody', Buffer.from('m'), { mandatory: true })
  await channel.waitForConfirms()
  say('returned', returned)
  await channel.close()
}

async function consume (connection, count) {
  const channel = await connection.createChannel()
  await channel.prefetch(3)
  const seen = []
  let refused = false
  await new Promise((resolve, reject) => {
    channel.consume(QUEUE, (message) => {
      seen.push([message.content.toString(), message.properties.headers.number, message.fields.redelivered])
      if (!refused) {
        refused = true
        channel.nack(message, false, true)
        return
      }
      channel.ack(message)
      if (seen.length === count + 1) resolve()
    }).catch(reject)
  })
  say('consumed', seen.sort())
  await channel.close()
}

async function converse (connection) {
  const owner = await connection.createChannel()
  await owner.assertExchange(EXCHANGE, 'topic', { durable: false })
  say('declared', (await owner.assertQueue(QUEUE, { durable: false })).messageCount)
  await owner.bindQueue(QUEUE, EXCHANGE, 'to.#')
  await publish(connection, 10)
  await consume(connection, 10)
  const other = await connection.createChannel()
  other.on('error', () => {})
  try {
    await other.checkQueue('amqplib.missing')
  } catch (error) {
    say('closed', error.code)
  }
  say('left', (await owner.checkQueue(QUEUE)).messageCount)
  await owner.close()
}

async function connect () {
  for (let attempt = 0; attempt < 300; attempt++) {
    try {
      const connection = await amqp.connect(URL)
      connection.on('error', () => {})
      return connection
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
  }
  throw new Error('the broker does not come back')
}

async function main () {
  let connection = await connect()
  const lost = new Promise((resolve) => connection.on('close', resolve))
  await converse(connection)
  say('waiting for the end of the broker')
  await lost
  say('lost')
  connection = await connect()
  await converse(connection)
  await connection.close()
  say('done')
}

main().catch((error) => {
  console.error(error)
  process.exit(1)
})
