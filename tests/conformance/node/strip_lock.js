'use strict';
// The lock names packages, versions and hashes, and no places.
const fs = require('fs');

const lock = JSON.parse(fs.readFileSync('package-lock.json'));
for (const entry of Object.values(lock.packages)) {
  delete entry.funding;
  delete entry.resolved;
}
fs.writeFileSync('package-lock.json', JSON.stringify(lock, null, 2) + '\n');
