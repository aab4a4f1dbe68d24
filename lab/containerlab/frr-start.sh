#!/bin/bash
# Starts FRR as its own image and Debian's unit do, and stays in the foreground:
# the daemons that /etc/frr/daemons asks for, under watchfrr, which has vtysh give
# them /etc/frr/frr.conf.

# What frrcommon.sh expects whoever sources it to have.
log_success_msg() { echo "$*"; }
log_warning_msg() { echo "$*" >&2; }
log_failure_msg() { echo "$*" >&2; }

# The daemons' sockets are here; where /run is new, no package has made it.
mkdir -p /var/run/frr && chown frr:frr /var/run/frr && chmod 755 /var/run/frr || exit 1

. /usr/lib/frr/frrcommon.sh
exec /usr/lib/frr/watchfrr $(daemon_list)
