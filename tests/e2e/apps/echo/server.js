// Says what it was asked and what it was sent, so that a client can see what the router made of it.
const http = require("node:http");
const { createHash } = require("node:crypto");

const PIECE = Buffer.alloc(65536, "dynomesh ");

http
  .createServer((request, response) => {
    const download = request.url.match(/^\/download\/(\d+)$/);
    if (download) return stream(response, Number(download[1]));
    const digest = createHash("sha256");
    let bytes = 0;
    request.on("data", (piece) => {
      digest.update(piece);
      bytes += piece.length;
    });
    request.on("end", () => {
      const { method, url, headers } = request;
      const answer = JSON.stringify({ method, url, headers, bytes, sha256: digest.digest("hex") });
      response.setHeader("Content-Type", "application/json");
      response.setHeader("Content-Length", answer.length);
      response.end(answer);
    });
  })
  .listen(process.env.PORT, "127.0.0.1");

function stream(response, bytes) {
  response.setHeader("Content-Length", bytes);
  const more = () => {
    while (bytes > 0) {
      const piece = PIECE.subarray(0, Math.min(bytes, PIECE.length));
      bytes -= piece.length;
      if (!response.write(piece)) return response.once("drain", more);
    }
    response.end();
  };
  more();
}
