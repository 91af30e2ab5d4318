#!/usr/bin/env bash
# Backs up what Nabij must not lose, while it runs. On the host of Redis, as a user who can read
# Redis's directory (root, or redis):
#   ops/backup.sh /var/backups/nabij [FILE...]
# FILEs are copied too: passwd, mosquitto.acl, mosquitto.conf, the policy, nabij.env.
# Prints the directory of the new backup, which has been loaded once and holds no places.
# docs/operations.md (Backup) says what is in it, and how to restore it.
#
# REDIS_HOST, REDIS_PORT: where Redis listens (127.0.0.1, 6379); its password is in REDISCLI_AUTH.
# REDIS_CA: the file of the CA, if it listens with TLS alone.
# KEEP_DAYS: backups of this directory that are older are deleted (7).
# One runs at a time for each DIRECTORY; what one that was killed has left is deleted by the next.
set -euo pipefail
umask 077
backups=${1:?usage: ops/backup.sh DIRECTORY [FILE...]}
shift
server=$(command -v redis-server || command -v valkey-server)
client=$(command -v redis-cli || command -v valkey-cli)

tls=()
[[ -z ${REDIS_CA:-} ]] || tls=(--tls --cacert "$REDIS_CA")
redis() {
    "$client" -e -h "${REDIS_HOST:-127.0.0.1}" -p "${REDIS_PORT:-6379}" ${tls[@]+"${tls[@]}"} "$@"
}
copied() { env -u REDISCLI_AUTH "$client" -e -s "$at/redis.sock" "$@"; }

# with_us COMMAND...: it ends with this script, also when that is killed.
with_us() {
    if command -v setpriv >/dev/null && setpriv --pdeathsig KILL true 2>/dev/null; then
        exec setpriv --pdeathsig KILL "$@"
    fi
    local this=$BASHPID
    (while kill -0 $$ 2>/dev/null; do sleep 0.2; done; kill -KILL "$this" 2>/dev/null) >/dev/null 2>&1 &
    exec "$@"
}

# rewritten redis|copied: an AOF without what was deleted.
rewritten() {
    "$1" bgrewriteaof >/dev/null
    while "$1" info persistence | grep -Eq '^aof_rewrite_(in_progress|scheduled):1'; do sleep 0.1; done
    "$1" info persistence | grep -q '^aof_last_bgrewrite_status:ok' || {
        echo "Redis could not rewrite its AOF; see its log" >&2
        exit 1
    }
}

mkdir -p "$backups"
exec {lock}<"$backups"
flock -w 2 "$lock" || { echo "another backup to $backups is under way" >&2; exit 1; }  # what a killed run had begun lets go by then
# Left by one that was killed, perhaps with where people are. Each has its socket's folder in it, as `at`.
for left in "$backups"/.unfinished-*; do
    [[ $(readlink "$left/at") != /tmp/nabij-backup-* ]] || rm -rf "$(readlink "$left/at")"
    rm -rf "$left"
done
new=$(mktemp -d "$backups/.unfinished-XXXXXX")
at=$(mktemp -d /tmp/nabij-backup-XXXXXX)  # a socket's path has 107 bytes at most
ln -s "$at" "$new/at"
ended() {
    [[ ! -S $at/redis.sock ]] || copied shutdown nosave >/dev/null 2>&1 || true
    rm -rf "$new" "$at"
}
trap ended EXIT

# copy_aof: false if a rewrite, which replaces the files, came in between: then the manifest changed.
copy_aof() {
    rm -rf "$new/appendonlydir"
    cp -r "$aof" "$new/appendonlydir" 2>/dev/null \
        && cmp -s "$aof"/*.manifest "$new"/appendonlydir/*.manifest
}

rewritten redis
aof=$(redis config get dir | tail -n 1)/$(redis config get appenddirname | tail -n 1)
[[ -r $aof ]] || { echo "cannot read $aof: run this on Redis's host, as root or redis" >&2; exit 1; }
for attempt in 1 2 3 4 5; do
    copy_aof && break
    ((attempt < 5)) || { echo "the AOF was rewritten during each copy, or cannot be copied" >&2; exit 1; }
done

# Load the copy: that proves it whole. Then take out where people are.
name=$(redis config get appendfilename | tail -n 1)
with_us "$server" --port 0 --unixsocket "$at/redis.sock" --dir "$new" --appendonly yes --save '' \
    --appendfilename "$name" >"$new/redis.log" {lock}<&- &
until copied ping >/dev/null 2>&1; do
    kill -0 $! 2>/dev/null || { cat "$new/redis.log" >&2; exit 1; }
    sleep 0.1
done
for family in at where home; do
    copied --scan --pattern "nabij:{p*}:$family:*" | while read -r key; do
        copied unlink "$key"
    done >/dev/null
done
rewritten copied
keys=$(copied dbsize)
copied shutdown >/dev/null 2>&1 || true
wait $!
rm -f "$new/redis.log" "$new/at"
((keys)) || { echo "there is nothing in that Redis: wrong REDIS_HOST or REDIS_PORT?" >&2; exit 1; }

for file in "$@"; do cp "$file" "$new/"; done
sync -f "$new"
finished=$backups/$(date -u +%Y%m%dT%H%M%S.%NZ)
mv "$new" "$finished"
find "$backups" -mindepth 1 -maxdepth 1 -name '2*Z' -mtime "+${KEEP_DAYS:-7}" -exec rm -rf {} +
echo "$finished"
