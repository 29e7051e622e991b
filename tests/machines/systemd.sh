#!/usr/bin/env bash
# systemd.sh CLUSTER MODEL.gguf: packaging/cluster.service under a systemd of its own.
#
# Boots this host's files, with changes kept in memory, in a container without a network, installs the unit there as its head
# says, and goes through what it promises: it starts, serves, comes back after a kill and a restart, lets a stream end, and
# stays down once its node was removed. Prints what happened; ends with an error where something did not. Not in CI.
#
# Needs root and: apt-get install systemd systemd-container curl
set -euo pipefail

cluster=$(readlink -f "$1") model=$(readlink -f "$2")
unit=$(dirname "$(readlink -f "$0")")/../../packaging/cluster.service
place=$(mktemp -d)
root=$place/root

finish() {
  umount "$root" "$place" 2> /dev/null || umount -l "$root" "$place"
  rmdir "$place"
}

mount -t tmpfs -o size=4g tmpfs "$place"
mkdir "$place/above" "$place/work" "$root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$place/above,workdir=$place/work" "$root"
trap finish EXIT

install -D -m 644 "$unit" "$root/etc/systemd/system/cluster.service"
install -m 755 "$cluster" "$root/usr/local/bin/cluster"
install -m 644 "$model" "$root/srv/model.gguf"
mkdir -p "$root/etc/cluster"
echo 'CLUSTER_MODEL=model=/srv/model.gguf' > "$root/etc/cluster/cluster.env"

cat > "$root/usr/local/bin/check" << 'CHECK'
#!/usr/bin/env bash
exec > /check.out 2>&1
set -euo pipefail
readonly URL=http://127.0.0.1:8000

say() { echo "== $*"; }
state() { systemctl show cluster -p "$1" --value; }
fail() { say "FAILED: $*"; journalctl -u cluster -o cat | tail -40; exit 1; }
expect() { [[ $1 == "$2" ]] || fail "$3: $1 instead of $2"; }

until_ready() {
  for _ in $(seq 120); do
    if curl -fs "$URL/health" > /dev/null; then return; fi
    sleep 0.25
  done
  fail "not ready within 30 s"
}

ask() {
  curl -fsN "$URL/v1/completions" -H "Authorization: Bearer $key" -H 'Content-Type: application/json' -d "$1"
}
text() { ask '{"model": "model", "prompt": "The capital of France is", "max_tokens": 12, "temperature": 0}' | grep -o '"text":"[^"]*"'; }

say "enabled and started"
systemctl enable --now cluster 2> /dev/null
until_ready
key=$(journalctl -u cluster -o cat | grep -o 'ck_[0-9a-f_]*' | head -n 1)
first=$(text)
echo "$first"
echo "user $(stat -c %U "/proc/$(state MainPID)") of $(state ControlGroup), state folder $(stat -c '%U %a' /var/lib/private/cluster)"
cluster status --data-dir /var/lib/cluster | head -n 4

say "killed: it is started again, and knows its key"
kill -KILL "$(state MainPID)"
sleep 3
until_ready
expect "$(text)" "$first" "the same tokens"
expect "$(state NRestarts)" 1 "restarts"

say "restarted"
systemctl restart cluster
until_ready
expect "$(text)" "$first" "the same tokens"

say "stopped amid a stream, which ends first"
ask '{"model": "model", "prompt": "Count", "max_tokens": 150, "ignore_eos": true, "stream": true}' > /tmp/stream &
sleep 0.3
systemctl stop cluster
wait
expect "$(tail -n 2 /tmp/stream | head -n 1)" "data: [DONE]" "the end of the stream"
expect "$(state Result) $(state ExecMainStatus)" "success 0" "how it ended"

say "removed: it is not started"
touch /var/lib/cluster/removed
systemctl start cluster
expect "$(state ActiveState)" inactive "a removed node"
rm /var/lib/cluster/removed

say "started once more"
systemctl start cluster
until_ready
expect "$(text)" "$first" "the same tokens"
systemd-analyze security cluster --no-pager | tail -n 1
say "done"
CHECK
chmod 755 "$root/usr/local/bin/check"
cat > "$root/etc/systemd/system/check.service" << 'UNIT'
[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/usr/local/bin/check
ExecStopPost=/bin/systemctl --no-block poweroff
UNIT
mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
ln -s ../check.service "$root/etc/systemd/system/multi-user.target.wants/check.service"

timeout 300 systemd-nspawn -D "$root" --register=no --keep-unit --private-network --boot > "$place/boot.log" 2>&1 || tail -n 20 "$place/boot.log"
cat "$root/check.out"
grep -q '^== done' "$root/check.out"
