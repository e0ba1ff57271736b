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
tern config check --config $config || fail "the installed configuration is not right here"
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

# Root rotates the key; the service, which is another user, reads it.
tern rotate-key --data /var/lib/tern || fail "the key is not rotated"
systemctl start tern || fail "systemd does not start it with a new key"
until_it_serves "its key was rotated"

# An admin endpoint with token and TLS, as the documentation says.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=tern \
    -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE -keyout /etc/tern/admin.key -out /etc/tern/admin.pem 2>/dev/null ||
    fail "openssl makes no certificate"
chmod 600 /etc/tern/admin.key /etc/tern/admin.pem
mkdir -p /etc/systemd/system/tern.service.d
cat >/etc/systemd/system/tern.service.d/override.conf <<END
[Service]
LoadCredential=admin.pem:/etc/tern/admin.pem
LoadCredential=admin.key:/etc/tern/admin.key
END
cp $config /run/config
sed -i '/^admin = /d' $config
cat >>$config <<END
[admin]
listen = "0.0.0.0:7323"
token_file = "/var/lib/tern-admin/token"
tls_cert = "/run/credentials/tern.service/admin.pem"
tls_key = "/run/credentials/tern.service/admin.key"
END
systemctl stop tern
tern config check --config $config || fail "the guarded configuration is not right"
systemctl daemon-reload
systemctl start tern || fail "systemd does not start it with token and TLS"
for _ in $(seq 150); do
    tern health --config $config >/dev/null 2>&1 && break
    sleep 0.2
done
tern health --config $config || fail "it is not healthy with token and TLS"
guarded="tern-ctl --admin 127.0.0.1:7323 --ca /etc/tern/admin.pem"
$guarded --token-file /var/lib/tern-admin/token status || fail "the token does not open the endpoint"
$guarded status 2>/dev/null && fail "it answers without the token"
cp /run/config $config
rm -r /etc/systemd/system/tern.service.d
systemctl daemon-reload
systemctl restart tern || fail "systemd does not start it without token and TLS"
until_it_serves "its endpoint was on loopback again"

# What may pass is tried again for as long as it takes.
systemctl stop tern
tern serve --data /run/other --phone 127.0.0.1:7322 --admin 127.0.0.1:7399 --shards 1 >/dev/null 2>&1 &
other=$!
sleep 2
systemctl start --no-block tern
# Each start waits five seconds for whoever may still be leaving, and the next one comes two seconds later.
sleep 25
[ "$(shows ActiveState)" = failed ] && fail "it is given up while its port is taken"
[ "$(shows NRestarts)" -gt 2 ] || fail "it was started again only $(shows NRestarts) times"
kill $other
until_it_serves "its port is free again"

# What no start can mend is not started again.
systemctl stop tern
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
