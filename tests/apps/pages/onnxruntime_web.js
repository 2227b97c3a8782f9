// A graph's outputs for given inputs, loaded as the bundle's manifest says.
import * as ort from "onnxruntime-web";

const ARRAYS = { int64: BigInt64Array, float32: Float32Array };

export async function run(job) {
  ort.env.wasm.wasmPaths = job.wasm;
  const manifest = await (await fetch("/bundle/manifest.json")).json();
  const session = await ort.InferenceSession.create(`/bundle/${manifest.main}`, {
    executionProviders: ["wasm"],
    externalData: manifest.external_data.map(({ path, data }) => ({ path, data: `/bundle/${data}` })),
    extra: manifest.session,
  });
  const feeds = {};
  for (const { name, type } of manifest.inputs) {
    const { shape, values } = job.inputs[name];
    const list = type === "int64" ? values.map(BigInt) : values;
    feeds[name] = new ort.Tensor(type, ARRAYS[type].from(list), shape);
  }
  const found = await session.run(feeds, [job.output]);
  return { inputs: session.inputNames, outputs: session.outputNames, values: Array.from(found[job.output].data) };
}
