// Reads an AsyncAPI document with the official parser, which sees what no JSON Schema can: dangling
// references, parameters that the address lacks. Prints each complaint; ends with 1 if there is one.
//
//   node check_contract.mjs ../../docs/contract/asyncapi.json
import { readFileSync } from 'node:fs';
import { Parser } from '@asyncapi/parser';

const { document, diagnostics } = await new Parser().parse(readFileSync(process.argv[2], 'utf8'));
for (const { code, message, path } of diagnostics) {
  console.log(`${path.join('.')}: ${message} (${code})`);
}
console.log(document ? `${document.channels().all().length} channels` : 'no document');
process.exit(document && diagnostics.length === 0 ? 0 : 1);
