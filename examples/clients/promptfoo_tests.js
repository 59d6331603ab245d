// The cases as promptfoo's tests; what the tables show of a case is its id.
const fs = require("node:fs");
const path = require("node:path");

module.exports = () =>
  JSON.parse(fs.readFileSync(path.join(__dirname, "cases.json"), "utf8")).map(({ id, prompt, picture }) => ({
    description: id,
    vars: { prompt, picture },
  }));
