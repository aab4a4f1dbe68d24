#!/bin/bash
# Makes, in the folder that is given, the certificate of an authority (ca.pem) and
# one of www.example.com that it has signed, with its key (site.pem). If they are
# there, and for a month to come, they stay: HAProxy may have read them already.
set -euo pipefail
cd "$1"
if [ -e site.pem ] && openssl x509 -in site.pem -noout -checkend 2592000 >/dev/null; then
	exit 0
fi
work=$(mktemp -d)
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 \
	-subj "/CN=authority of the lab" -keyout "$work/ca.key" -out "$work/ca.pem" 2>/dev/null
openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
	-subj "/CN=www.example.com" -keyout "$work/site.key" -out "$work/site.csr" 2>/dev/null
openssl x509 -req -in "$work/site.csr" -CA "$work/ca.pem" -CAkey "$work/ca.key" -CAcreateserial -days 365 \
	-extfile <(printf 'subjectAltName=DNS:www.example.com\nbasicConstraints=CA:FALSE\n') -out "$work/site.crt" 2>/dev/null

# The key of a lab. HAProxy reads it as a user of its own.
cat "$work/site.crt" "$work/site.key" >site.new
chmod 644 site.new
cat "$work/ca.pem" >ca.pem
chmod 644 ca.pem
mv site.new site.pem
rm -r "$work"
