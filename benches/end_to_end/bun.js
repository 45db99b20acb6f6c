// The canned Pomelo echo of the other peers, by Bun's server, which is uWebSockets inside:
//     bun bun.js [certificate key]
// Prints its address, and answers each line of standard input with a line, until the input ends.
const HANDSHAKE = 1, ACK = 2, HEARTBEAT = 3, DATA = 4;
const RESPONSE = 4;
const HELLO = Buffer.from('\x01\x00\x00\x23{"code":200,"sys":{"heartbeat":30}}', "latin1");
const BEAT = Buffer.from([HEARTBEAT, 0, 0, 0]);

// Writes the head of an answer right in front of the request's body, and returns where it begins:
// package type, length, flag, id. The request has its route there, which is longer.
function answer(message) {
  let idEnd = 5;
  while (message[idEnd] & 0x80) idEnd++;
  idEnd++;
  const bodyAt = idEnd + 1 + message[idEnd];
  let at = bodyAt;
  for (let from = idEnd - 1; from >= 5; from--) message[--at] = message[from];
  message[--at] = RESPONSE;
  const length = message.length - at;
  message[--at] = length & 0xff;
  message[--at] = (length >> 8) & 0xff;
  message[--at] = length >> 16;
  message[--at] = DATA;
  return at;
}

const [certificate, key] = process.argv.slice(2);
const server = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  tls: certificate && { cert: Bun.file(certificate), key: Bun.file(key) },
  fetch(request, server) {
    return server.upgrade(request) ? undefined : new Response("WebSocket only", { status: 400 });
  },
  websocket: {
    idleTimeout: 0,
    perMessageDeflate: false,
    message(socket, message) {
      switch (message[0]) {
        case DATA:
          socket.sendBinary(message.subarray(answer(message)));
          break;
        case HANDSHAKE:
          socket.sendBinary(HELLO);
          break;
        case ACK:
        case HEARTBEAT:
          socket.sendBinary(BEAT);
      }
    },
  },
});

process.stdout.write(`127.0.0.1:${server.port}\n`);
for await (const _ of console) process.stdout.write("- -\n");
process.exit(0);
