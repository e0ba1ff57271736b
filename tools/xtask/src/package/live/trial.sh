#!/bin/sh
# The package under a systemd that runs: installed, started, talked through, drained, killed, misconfigured, removed.
# Its last line is "passed".
address="--phone 127.0.0.1:7322 --admin 127.0.0.1:7323"
config=/etc/tern/tern.toml

fail() {
    echo "trial: $1"
    systemctl status --no-pager --full tern
    journalctl --no-pager --lines 30 --unit tern
    exit 1
}

# shows KEY: the unit's property.
shows() {
    systemctl show --property "$1" --value tern
}

serves() {
    tern-ctl --admin 127.0.0.1:7323 status --json 2>/dev/null | grep -q '"state":"serving"'
}

until_it_serves() {
    for _ in $(seq 150); do
        serves && return
        sleep 0.2
    done
    fail "it does not serve after $1"
}

dpkg --install /run/share/tern.deb || fail "dpkg does not install it"
[ "$(shows ActiveState)" = inactive ] || fail "installing started it"
systemctl enable --now tern || fail "systemd does not start it"
serves || fail "systemctl start returned before it serves"

pid=$(shows MainPID)
for line in "Uid:	0" "NoNewPrivs:	0" "Seccomp:	0"; do
    grep -q "^$line" "/proc/$pid/status" && fail "the sandbox is not there: $line"
done
grep -q "^CapEff:	0000000000000000" "/proc/$pid/status" || fail "it has capabilities"
ls -l "/proc/$pid/fd" | grep -q io_uring || fail "it runs without io_uring"

tern-load pairs $address --phones 8 --rate 200 --duration 1 --body 64 --json || fail "phones do not talk"

# A restart drains; the phones are told, come back and lose nothing.
tern-load pairs $address --phones 8 --rate 100 --duration 5 --body 64 --patience 60 --json >/run/load &
load=$!
sleep 3
systemctl restart tern || fail "systemd does not restart it"
wait $load || fail "messages were lost in a restart: $(cat /run/load)"
journalctl --no-pager --unit tern | grep -q " drained" || fail "it did not drain"

kill -9 "$(shows MainPID)"
sleep 2
until_it_serves "a SIGKILL"
[ "$(shows NRestarts)" = 1 ] || fail "systemd started it $(shows NRestarts) times after a SIGKILL"
tern-load pairs $address --phones 8 --rate 1 --duration 1 --verify-only --json || fail "the kill cost something"

systemctl stop tern || fail "systemd does not stop it"
[ "$(shows Result) $(shows ExecMainStatus)" = "success 0" ] || fail "SIGTERM: $(shows Result) $(shows ExecMainStatus)"

# What no start can mend is not started again.
cp $config /run/config
echo "nonsense = 1" >>$config
systemctl start tern && fail "systemctl start says that a wrong configuration serves"
sleep 3
[ "$(shows ActiveState) $(shows ExecMainStatus)" = "failed 2" ] ||
    fail "a wrong configuration: $(shows ActiveState) $(shows ExecMainStatus)"
cp /run/config $config
systemctl reset-failed tern
systemctl start tern || fail "systemd does not start it again"
serves || fail "it does not serve after its configuration was mended"

dpkg --purge tern || fail "dpkg does not remove it"
[ "$(shows LoadState) $(shows MainPID)" = "not-found 0" ] || fail "it outlives its package: $(shows LoadState)"
[ -e /var/lib/private/tern/MANIFEST ] || fail "the data went with the package"
echo passed
