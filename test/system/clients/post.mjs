// Posts with what Node brings along: node post.mjs URL CERT KEY CA → one JSON object of statuses on stdout.
import { readFileSync } from "node:fs";
import http2 from "node:http2";
import https from "node:https";

const [url, cert, key, ca] = process.argv.slice(2);
const tls = { cert: readFileSync(cert), key: readFileSync(key), ca: readFileSync(ca) };
const text = (name) => JSON.stringify({ sender_number: "+4915112345678", message_body: `from ${name}` });
const type = { "content-type": "application/json" };

function collect(stream, status, resolve) {
	let body = "";
	stream.setEncoding("utf8").on("data", (piece) => (body += piece)).on("end", () => resolve({ status: status(), body }));
}

function overHttps(agent, headers, pieces) {
	return new Promise((resolve, reject) => {
		const options = { ...tls, agent, method: "POST", headers: { ...type, ...headers } };
		const request = https.request(`${url}/api/v1/messages`, options, (r) => collect(r, () => r.statusCode, resolve));
		request.on("error", reject);
		pieces.forEach((piece) => request.write(piece));
		request.end();
	});
}

function overHttp2(session, name) {
	return new Promise((resolve, reject) => {
		const stream = session.request({ ":method": "POST", ":path": "/api/v1/messages", ...type });
		let status;
		stream.on("response", (headers) => (status = headers[":status"])).on("error", reject);
		collect(stream, () => status, resolve);
		stream.end(text(name));
	});
}

const agent = new https.Agent({ keepAlive: true, maxSockets: 1 });
const sized = text("node with a length");
const answers = [
	await overHttps(agent, { "content-length": Buffer.byteLength(sized) }, [sized]),
	await overHttps(agent, {}, [...text("node in chunks")]),
];
agent.destroy();
const session = http2.connect(url, tls);
answers.push(...(await Promise.all([1, 2, 3, 4].map((i) => overHttp2(session, `node stream ${i}`)))));
session.close();
console.log(JSON.stringify(answers.map((a) => ({ status: a.status, message_id: JSON.parse(a.body).message_id }))));
