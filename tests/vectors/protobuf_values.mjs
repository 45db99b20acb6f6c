// Makes tests/vectors/protobuf_values.json: what pomelo-protobuf writes for values that are not
// quite of a field's type. Run it with the folder that holds pomelo-protobuf:
//
//     node tests/vectors/protobuf_values.mjs target/oracle/node_modules
//
// A row is [type, option, the value as JSON, what came of it]: the body in hex, "nothing" where
// encode() returns null, "throws" where it throws. A body whose member would go unmentioned is
// never empty, as `last` stands behind it. Infinity as an integer is left out: it never returns.
import fs from 'node:fs';
import path from 'node:path';
import { createRequire } from 'node:module';

const require = createRequire(path.resolve(process.argv[2], 'x.js'));
const protobuf = require('pomelo-protobuf');
process.removeAllListeners('warning');
process.noDeprecation = true;
const write = process.stdout.write.bind(process.stdout);
console.warn = console.log = () => {};

const TEXTS = [
  '', ' ', '0', '7', ' 12 ', '\t12\n', '\u00a012', '\ufeff12', '\u008512', '\u200b12', '12abc', '12.50',
  '12,5', '1e3', '1E21', '0x1F', '0X1f', '-0x1F', '+0x1f', '0x', '0xg', '0x1g', '0b11', '0o17', '010',
  '+5', '-5', '--5', '- 5', '.5', '5.', '+', '-', 'abc', 'NaN', 'true', 'null', 'é', '1_000', '٣',
  '4294967295', '4294967296', '9007199254740993', '18446744073709551615', '18446744073709551616',
  '123456789012345678901234567890', '0xffffffffffffffffff', '0x20000000000001', '0x20000000000003',
  'Infinity', '-Infinity', '2.5', '-2.5e-3', '1e400', '1e-400', ' 2.5 ', '0.1', 'inf', '1e',
];
const NUMBERS = [
  '0', '-0', '1', '-1', '3.7', '-3.7', '0.5', '-0.5', '127', '128', '-64', '-65', '2147483647',
  '2147483648', '-2147483648', '-2147483649', '4294967295', '4294967296', '9007199254740991',
  '9007199254740992', '9007199254740993', '-9007199254740991', '-9007199254740993',
  '18446744073709551615', '18446744073709551616', '-9223372036854775808', '100000000000000000000',
  '123456789012345680000', '999999999999999900000', '1e21', '1.5e21', '-1e21', '9.9e22', '1e300',
  '-2e300', '0.000001', '0.0000012', '1e-7', '9.5e-7', '-3e-9', '5e-324', '1.7976931348623157e308',
  '3.4028235e38', '3.5e38', '-3.5e38', '1e-46', '0.1',
];
const OTHERS = [
  'null', 'true', 'false', '{}', '{"a":1}', '[]', '[null]', '[5]', '["12abc"]', '["2.5"]', '[[6]]',
  '[1,2]', '[true]', '[{}]', '[""]', '[[],3]',
];
// What an array of numbers, texts or messages may be instead of one.
const LISTS = [
  ...OTHERS, '0', '5', '""', '"12"', '"ab"', '"1é中😀"', '[1,"2",3.7]', '[1,null]', '["a","b"]',
  '["a",5]', '[1e21,"0x10"]', '[{"v":1},{"v":"0x10"}]', '[{"v":1},null]', '[{"v":1},0]', '[5,"x"]',
];

const TYPES = ['uInt32', 'int32', 'sInt32', 'float', 'double', 'string', 'Any', 'Must'];
const values = [...TEXTS.map((text) => JSON.stringify(text)), ...NUMBERS, ...OTHERS];
const protos = {
  'message Any': { 'optional uInt32 v': 1 },
  'message Must': { 'required uInt32 v': 1 },
};
for (const type of TYPES) {
  for (const option of ['required', 'optional', 'repeated']) {
    protos[`${type}.${option}`] = { [`${option} ${type} m`]: 1, 'optional uInt32 last': 2 };
  }
}
protobuf.init({ encoderProtos: protobuf.parse(protos), decoderProtos: {} });

// The original's buffer is twice as long as the JSON, and its exceptions of a small one would hide
// what it makes of a value: members that no schema knows make it longer.
const pad = `"pad":"${'x'.repeat(500)}"`;
function encode(route, value) {
  try {
    const body = protobuf.encode(route, JSON.parse(`{"m":${value},"last":1,${pad}}`));
    return body ? body.toString('hex') : 'nothing';
  } catch {
    return 'throws';
  }
}

const rows = [];
for (const type of TYPES) {
  for (const option of ['required', 'optional']) {
    const isText = (value) => value[0] === '"';
    for (const value of values) {
      // One text tells of all where texts are written as they are.
      if ((type === 'string' || type.length < 5) && isText(value) && value.length > 6) continue;
      rows.push([type, option, value, encode(`${type}.${option}`, value)]);
    }
  }
  for (const value of LISTS) rows.push([type, 'repeated', value, encode(`${type}.repeated`, value)]);
}
const file = path.join(path.dirname(new URL(import.meta.url).pathname), 'protobuf_values.json');
const version = require('pomelo-protobuf/package.json').version;
const head = { about: `pomelo-protobuf ${version} on Node ${process.versions.node.split('.')[0]}`, protos };
const text = JSON.stringify(head, null, 1).replace(/\n}$/, '');
fs.writeFileSync(file, `${text},\n "rows": [\n${rows.map((row) => `  ${JSON.stringify(row)}`).join(',\n')}\n ]\n}\n`);
write(`${rows.length} rows in ${file}\n`);
