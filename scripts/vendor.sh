#!/bin/sh
# Fetches what the page takes from others, checks it against its hash, and puts it below web/vendor, unchanged.
# For a new version: change both lines here, run `make vendor`, and change the imports in web/parts/html.js.
set -eu

version=3.3.3
sha512=7a5f0cea32b6a37457067ad21d7dd92abb0df33115eb7a521314ced70609cfb427746619f37e777b66b93cf5fea877b66866b27e7721426900a2369601110e20

cd "$(dirname "$0")/.."
target=$(pwd -P)/backend/mlx_manager/web/vendor/lit-html-$version

if ! command -v npm >/dev/null 2>&1; then
    echo "npm is needed to fetch lit-html; nothing else here needs it." >&2
    exit 1
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$work" && npm pack --silent "lit-html@$version" >/dev/null)
archive=$work/lit-html-$version.tgz
found=$({ sha512sum "$archive" 2>/dev/null || shasum -a 512 "$archive"; } | cut -d ' ' -f 1)
if [ "$found" != "$sha512" ]; then
    echo "lit-html $version has the hash $found, not the one that scripts/vendor.sh names: nothing was changed." >&2
    exit 1
fi
tar -xzf "$archive" -C "$work"
rm -rf "$(dirname "$target")"
mkdir -p "$target/directives"
for file in LICENSE lit-html.js directive.js directive-helpers.js directives/keyed.js directives/live.js directives/repeat.js; do
    cp "$work/package/$file" "$target/$file"
done
echo "lit-html $version is in $target."
