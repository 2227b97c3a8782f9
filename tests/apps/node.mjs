// What node-llama-cpp makes of a file's name, and the text with which the model in it goes on.
// Usage: node node.mjs MODULES MODEL TOKENS PROMPT...
import path from "node:path";
import { pathToFileURL } from "node:url";

const [modules, model, tokens, ...prompts] = process.argv.slice(2);
const load = (file) => import(pathToFileURL(path.join(modules, "node-llama-cpp/dist", file)).href);
const { getLlama, LlamaCompletion } = await load("index.js");
const { parseModelFileName } = await load("utils/parseModelFileName.js");

const llama = await getLlama({ gpu: false, build: "never", logLevel: "error", maxThreads: 1 });
const loaded = await llama.loadModel({ modelPath: model });
const texts = [];
for (const prompt of prompts) {
  const context = await loaded.createContext({ contextSize: 256 });
  const completion = new LlamaCompletion({ contextSequence: context.getSequence() });
  texts.push(await completion.generateCompletion(prompt, { maxTokens: Number(tokens), temperature: 0 }));
  await context.dispose();
}
console.log(JSON.stringify({ name: parseModelFileName(path.basename(model)), texts }));
await llama.dispose();
