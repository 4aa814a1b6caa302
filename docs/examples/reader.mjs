// Reads a bundle of edgewright without Python, and proves itself on the golden vectors:
//
//     npm install onnxruntime-node && node reader.mjs my-bundle [artefact]
//
// Exit status 0: every file is what the manifest says, and all logits are within the manifest's tolerance.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { InferenceSession, Tensor } from "onnxruntime-node";

const [folder, wanted] = process.argv.slice(2);
const manifest = JSON.parse(readFileSync(join(folder, "manifest.json"), "utf8"));
if (manifest.schema_version !== 1) throw new Error(`schema version ${manifest.schema_version}; this reads 1`);

// Whatever is used was checked first: size and SHA-256 of every file stand in the manifest.
function read(name) {
  const record = manifest.files[name];
  if (!record) throw new Error(`'${name}' is not listed in the manifest`);
  const bytes = readFileSync(join(folder, name));
  const found = createHash("sha256").update(bytes).digest("hex");
  if (bytes.length !== record.size_bytes || found !== record.sha256) throw new Error(`'${name}' was altered`);
  return bytes;
}
for (const name of Object.keys(manifest.files)) read(name);

// Best first. `machines` are CPUs as Python calls them; none means any.
const machine = { x64: "x86_64", arm64: "aarch64" }[process.arch];
const artefact = manifest.artefacts.find(
  (one) =>
    (wanted ? one.name === wanted : one.machines.length === 0 || one.machines.includes(machine)) &&
    one.backend === "onnxruntime",
);
if (!artefact) throw new Error("no such artefact for ONNX Runtime on this machine");
const session = await InferenceSession.create(read(artefact.file));

// Pixels in, uint8 [batch, height, width, channel]; logits out. Normalisation is inside the graph.
async function logitsOf(pixels) {
  const shape = [1, ...manifest.input.shape.slice(1)];
  const fed = { [manifest.input.name]: new Tensor("uint8", pixels, shape) };
  return (await session.run(fed))[manifest.output.name].data;
}

let worst = 0;
for (const { tensor, label, logits } of manifest.golden) {
  const found = Array.from(await logitsOf(new Uint8Array(read(tensor))));
  worst = Math.max(worst, ...found.map((value, index) => Math.abs(value - logits[index])));
  const shares = found.map((value) => Math.exp(value - Math.max(...found)));
  const best = found.indexOf(Math.max(...found));
  const score = shares[best] / shares.reduce((sum, share) => sum + share);
  console.log(`${tensor}: ${manifest.labels[best]} ${score.toFixed(3)} (is ${label})`);
}
const allowed = artefact.parity.golden_tolerance;
console.log(`${artefact.name}: logits differ by up to ${worst.toExponential(1)}, allowed ${allowed.toExponential(1)}`);
process.exitCode = worst <= allowed ? 0 : 1; // false for NaN, too
