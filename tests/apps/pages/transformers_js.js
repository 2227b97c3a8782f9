// Sentence vectors, or the tokens that a text goes on with, by the pipelines of transformers.js.
import { env, pipeline } from "@huggingface/transformers";

export async function run(job) {
  env.allowRemoteModels = false;
  env.allowLocalModels = true;
  env.localModelPath = "/bundle/";
  env.useBrowserCache = false;
  env.backends.onnx.wasm.wasmPaths = job.wasm;
  const pipe = await pipeline(job.task, job.model, { device: "wasm" });
  if (job.task === "feature-extraction") {
    return (await pipe(job.texts, { pooling: "mean", normalize: true })).tolist();
  }
  const found = [];
  for (const text of job.texts) {
    found.push((await pipe(text, { max_new_tokens: job.tokens, do_sample: false }))[0].generated_text);
  }
  return found;
}
