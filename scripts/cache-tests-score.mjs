// Prints how many tests of http-cache-tests a proxy passes: node cache-tests-score.mjs SUITE NAME
// RESULTS [-v]. A test counts only if all that it depends on pass. With -v, lists what fails.
import { readFileSync } from 'node:fs'

const [suite, name, file, verbose] = process.argv.slice(2)
const tests = (await import(`${suite}/tests/index.mjs`)).default
const surrogate = (await import(`${suite}/tests/surrogate-control.mjs`)).default
const all = [...tests, surrogate].flatMap(group => group.tests).filter(test => !test.browser_only)
const byId = new Map(all.map(test => [test.id, test]))
let results
try {
  results = JSON.parse(readFileSync(file, 'utf8'))
} catch (error) {
  console.error(`${name}: there are no results in '${file}': ${error.message}`)
  process.exit(1)
}

function passes (id) {
  const test = byId.get(id)
  if (results[id] !== true) return false
  return (test?.depends_on ?? []).every(passes)
}

const counted = kind => {
  const some = all.filter(test => (test.kind ?? 'required') === kind)
  const failed = some.filter(test => !passes(test.id))
  if (verbose) {
    for (const test of failed) {
      const why = results[test.id]
      console.log(`${kind} ${test.id}: ${why === true ? 'what it depends on fails' : why?.[1]}`)
    }
  }
  return `${kind} ${some.length - failed.length} of ${some.length}`
}
console.log(`${name}: ${counted('required')}, ${counted('optimal')}`)
