// The text that follows a prompt, from a GGUF file or from shards of which the first one is named.
import { Wllama } from "@wllama/wllama";

export async function run(job) {
  const wllama = new Wllama({ default: job.wasm }, { suppressNativeLog: true });
  const manifest = await (await fetch("/bundle/manifest.json")).json();
  await wllama.loadModelFromUrl(new URL(`/bundle/${manifest.main}`, location.href).href, {
    n_ctx: 256,
    n_threads: 2,
    n_gpu_layers: 0,
    useCache: false,
  });
  const found = [];
  for (const prompt of job.texts) {
    found.push(await wllama.createCompletion({ prompt, max_tokens: job.tokens, temperature: 0, top_k: 1 }));
  }
  await wllama.exit();
  return found.map((one) => one.choices[0].text);
}
