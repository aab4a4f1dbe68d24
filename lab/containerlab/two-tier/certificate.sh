#!/bin/bash
# Makes, in the folder that is given, the certificate of an authority (ca.pem) and
# one of www.example.com that it has signed, with its key (site.pem). If they are
# there, and for a month to come, they stay: HAProxy may have read them already.
set -euo pipefail
cd "$1"
exec 9>.lock
flock 9 # two of these labs may be deployed at once, and the folder is one
# The key is for root, and for the user that HAProxy is in its own image.
keep() {
	chown 99:99 "$1"
	chmod 400 "$1"
}
if [ -e site.pem ] && openssl x509 -in site.pem -noout -checkend 2592000 >/dev/null; then
	keep site.pem
	exit 0
fi
umask 077
work=$(mktemp -d)
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 \
	-subj "/CN=authority of the lab" -keyout "$work/ca.key" -out "$work/ca.pem" 2>/dev/null
openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
	-subj "/CN=www.example.com" -keyout "$work/site.key" -out "$work/site.csr" 2>/dev/null
openssl x509 -req -in "$work/site.csr" -CA "$work/ca.pem" -CAkey "$work/ca.key" -CAcreateserial -days 365 \
	-extfile <(printf 'subjectAltName=DNS:www.example.com\nbasicConstraints=CA:FALSE\n') -out "$work/site.crt" 2>/dev/null

cat "$work/site.crt" "$work/site.key" >site.new
keep site.new
cat "$work/ca.pem" >ca.pem
chmod 644 ca.pem
mv site.new site.pem
rm -r "$work"
