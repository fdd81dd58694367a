// Reads one simulation per line, answers with one verdict per line. Runs in a process of its own, for tests alone.
import { createInterface } from 'node:readline'
import { runSimulation } from '@cloud-copilot/iam-simulate'

for await (const line of createInterface({ input: process.stdin })) {
  const answer = await runSimulation(JSON.parse(line), {})
  console.log(answer.resultType === 'error' ? 'error ' + JSON.stringify(answer.errors) : answer.overallResult +
    (answer.result?.ignoredContextKeys?.length ? ' ignored ' + answer.result.ignoredContextKeys : ''))
}
