// Starts services of the emulator on request: a line of JSON in, a line of JSON out. Ends with its standard input.
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const { createEmulator } = await import(pathToFileURL(process.argv[2]).href);
const running = new Map();

async function answer({ start, stop, seed }) {
  if (stop) {
    await running.get(stop)?.close();
    running.delete(stop);
    return { stopped: stop };
  }
  const service = await createEmulator({ service: start, port: 0, seed });
  running.set(service.url, service);
  return { url: service.url, secrets: service.generatedSecrets };
}

for await (const line of createInterface({ input: process.stdin })) {
  try {
    process.stdout.write(JSON.stringify(await answer(JSON.parse(line))) + "\n");
  } catch (error) {
    process.stdout.write(JSON.stringify({ error: String(error?.stack ?? error) }) + "\n");
  }
}
process.exit(0);
