#!/bin/sh
# OpenSSL as a witness: opens every envelope that is for the recipient, ours among them, and verifies what we signed.
# Signatures with SHA-1 it leaves to us, since distributions differ in whether they still allow them.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

open() { openssl cms -decrypt -binary -inform DER -in "$1" -inkey recipient-key.pem -recip recipient.pem -out "$2"; }

for envelope in ours-*.p7m openssl-*.p7m cryptography-*.p7m bouncycastle-*.p7m; do
    [ -e "$envelope" ] || continue
    case $envelope in
    openssl-other-recipient.p7m)
        if open "$envelope" "$work/out" 2>"$work/log"; then echo "$envelope: opened, and should not"; exit 1; fi
        continue ;;
    esac
    open "$envelope" "$work/out"
    case $envelope in
    *-package-*)
        rm -rf "$work/zip" && mkdir "$work/zip"
        python3 -m zipfile -e "$work/out" "$work/zip"
        cmp plain.txt "$work/zip/plain.txt"
        case $envelope in *-sha1.p7m) continue ;; esac
        openssl cms -verify -binary -inform DER -in "$work"/zip/META-INF/signature-*.p7s \
            -content "$work/zip/META-INF/ASiCManifest.xml" -CAfile recipient.pem -purpose any -out "$work/manifest" 2>"$work/log"
        digest=$(openssl dgst -sha256 -binary plain.txt | openssl base64 -A)
        grep -qF "$digest" "$work/manifest" ;;
    *) cmp plain.txt "$work/out" ;;
    esac
done
echo "ok"
