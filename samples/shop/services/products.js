// The catalogue in Node.js, standard library only. Stock comes from `inventory`, a plain TCP line protocol in
// which the server speaks first.
'use strict';
const http = require('http');
const net = require('net');

const VERSION = process.env.VERSION || 'v1';
const INSTANCE = process.env.INSTANCE || `${VERSION}/${process.pid}`;
const PORT = Number(process.env.PORT || 9080);
const [STOCK_HOST, STOCK_PORT] =
  (process.env.INVENTORY_URL || 'tcp://inventory:7070').replace(/^\w+:\/\//, '').split(':');
const PRODUCTS = [
  { id: 1, title: 'Casting net', text: 'Thrown by hand, two fathoms wide.' },
  { id: 2, title: 'Gill net', text: 'Set at dusk, lifted at dawn.' },
  { id: 3, title: 'Seine', text: 'Needs two boats and some patience.' },
];

function stock(id) {
  return new Promise((resolve) => {
    const socket = net.connect({ host: STOCK_HOST, port: Number(STOCK_PORT), timeout: 3000 });
    let text = '';
    let asked = false;
    const end = (value) => { socket.destroy(); resolve(value); };
    socket.on('data', (chunk) => {
      text += chunk;
      const lines = text.split('\n');
      if (!asked && lines.length > 1) {
        asked = true;
        socket.write(`STOCK ${id}\n`);
      }
      if (lines.length > 2) end(Number(lines[1].split(' ')[1]));
    });
    socket.on('error', () => end(null));
    socket.on('timeout', () => end(null));
    socket.on('close', () => resolve(null));
  });
}

function reply(response, status, value) {
  const body = JSON.stringify(value) + '\n';
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) });
  response.end(body);
}

async function answer(request, response) {
  const path = request.url.split('?')[0];
  const base = { service: 'products', version: VERSION, instance: INSTANCE, language: 'javascript' };
  if (path === '/health') return reply(response, 200, { service: 'products', healthy: true });
  if (path === '/headers') return reply(response, 200, { ...base, path, headers: request.headers });
  if (path === '/products') return reply(response, 200, { ...base, products: PRODUCTS });
  const product = PRODUCTS.find((p) => path === `/products/${p.id}`);
  if (!product) return reply(response, 404, { error: `no page ${path}` });
  return reply(response, 200, { ...base, ...product, stock: await stock(product.id) });
}

http.createServer((request, response) => {
  request.resume();
  answer(request, response).catch((error) => reply(response, 500, { error: String(error) }));
}).listen(PORT, () => console.log(`products ${VERSION} (Node.js) listens on port ${PORT}`));
process.on('SIGTERM', () => process.exit(0));
