#!/usr/bin/env bash
# Runs the public tests of HTTP caches against proxies: scripts/cache-tests.sh [-v] [NAME…]
# NAMEs are replay-proxy (the default), none, and, where they are installed, nginx, varnish,
# haproxy, squid, apache and trafficserver. Needs node, and npm once,
# to install the tests below target/cache-tests. docs/REPLAY.md says what fails, and why.
set -euo pipefail
case " $* " in *" -h "* | *" --help "*)
    sed -n '2,${/^#/!q;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
    exit 0 ;;
esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."
verbose=""
if [ "${1-}" = "-v" ]; then verbose=-v; shift; fi
names=("$@")
[ $# -gt 0 ] || names=(replay-proxy)
version=0.4.5
work=$PWD/target/cache-tests
suite=$work/package
mkdir -p "$work"
if [ ! -e "$suite/cli.mjs" ] || [ ! -d "$work/node_modules/node-fetch" ]; then
    (cd "$work" && npm pack --silent "http-cache-tests@$version" >/dev/null &&
        tar xzf "http-cache-tests-$version.tgz" &&
        npm i --silent --ignore-scripts --no-save node-fetch@2 >/dev/null)
fi

free_port() {
    node -e 's=require("net").createServer().listen(0,"127.0.0.1",()=>{console.log(s.address().port);s.close()})'
}
children=()
trap 'kill "${children[@]}" 2>/dev/null || true' EXIT
until_answers() {
    for _ in $(seq 100); do
        curl -sf -o "$work/ready" "http://127.0.0.1:$1/package.json" && return
        sleep 0.1
    done
    echo "nothing answers at port $1" >&2
    exit 1
}

start() { # NAME FRONT ORIGIN
    local dir=$work/$1
    rm -rf "$dir" && mkdir -p "$dir"
    case $1 in
    none) ;;
    replay-proxy)
        local bin=${REPLAY_PROXY:-target/release/replay-proxy}
        [ -x "$bin" ] || bin=target/debug/replay-proxy
        "$bin" serve --mode=passthrough-cache --upstream="127.0.0.1:$3" --store="$dir/store" \
            --listen="127.0.0.1:$2" >"$dir/log" 2>&1 & ;;
    nginx)
        cat >"$dir/nginx.conf" <<EOF
daemon off; pid $dir/pid; error_log stderr error; user root;
events {}
http {
    access_log off; client_body_temp_path $dir/b; proxy_temp_path $dir/p;
    fastcgi_temp_path $dir/f; uwsgi_temp_path $dir/u; scgi_temp_path $dir/s;
    proxy_cache_path $dir/cache keys_zone=c:10m;
    server {
        listen 127.0.0.1:$2;
        location / {
            proxy_pass http://127.0.0.1:$3; proxy_http_version 1.1; proxy_cache c;
            proxy_cache_revalidate on;
        }
    }
}
EOF
        nginx -p "$dir" -e stderr -c "$dir/nginx.conf" >"$dir/log" 2>&1 & ;;
    varnish)
        varnishd -F -j none -n "$dir/v" -b "127.0.0.1:$3" -a "127.0.0.1:$2" -T none \
            -p default_ttl=0 -p default_grace=0 -p default_keep=3600 >"$dir/log" 2>&1 & ;;
    haproxy)
        cat >"$dir/haproxy.cfg" <<EOF
defaults
    mode http
    timeout client 60s
    timeout server 60s
    timeout connect 5s
cache c
    total-max-size 64
    process-vary on
listen front
    bind 127.0.0.1:$2
    http-request cache-use c
    http-response cache-store c
    server origin 127.0.0.1:$3
EOF
        haproxy -f "$dir/haproxy.cfg" >"$dir/log" 2>&1 & ;;
    squid)
        cat >"$dir/squid.conf" <<EOF
http_port 127.0.0.1:$2 accel defaultsite=127.0.0.1 no-vhost
cache_peer 127.0.0.1 parent $3 0 no-query no-digest no-netdb-exchange originserver
http_access allow all
never_direct allow all
access_log none
cache_log /dev/null
pid_filename none
netdb_filename none
pinger_enable off
coredump_dir $dir
client_idle_pconn_timeout 8 seconds
shutdown_lifetime 0 seconds
EOF
        squid -N -f "$dir/squid.conf" >"$dir/log" 2>&1 & ;;
    apache)
        cat >"$dir/httpd.conf" <<EOF
$(for module in mpm_event authz_core proxy proxy_http cache cache_disk; do
            echo "LoadModule ${module}_module /usr/lib/apache2/modules/mod_$module.so"
        done)
ServerName 127.0.0.1
Listen 127.0.0.1:$2
DefaultRuntimeDir $dir
PidFile $dir/pid
ErrorLog /dev/stderr
User nobody
Group nogroup
KeepAliveTimeout 60
CacheRoot $dir/cache
CacheEnable disk /
ProxyPass / http://127.0.0.1:$3/ disablereuse=on
EOF
        mkdir -p "$dir/cache" && chmod 777 "$dir/cache"
        apache2 -DFOREGROUND -d "$dir" -f "$dir/httpd.conf" >"$dir/log" 2>&1 & ;;
    trafficserver)
        for part in prefix exec_prefix bindir sbindir sysconfdir datadir includedir libdir \
            libexecdir localstatedir runtimedir logdir cachedir; do
            echo "$part: $dir"
        done >"$dir/runroot.yaml"
        echo "map / http://127.0.0.1:$3/" >"$dir/remap.config"
        echo "$dir 64M" >"$dir/storage.config"
        printf 'ip_allow:\n  - apply: in\n    ip_addrs: 0/0\n    action: allow\n    methods: ALL\n' \
            >"$dir/ip_allow.yaml"
        cat >"$dir/records.config" <<EOF
CONFIG proxy.config.http.server_ports STRING $2:ip-in=127.0.0.1
CONFIG proxy.config.admin.user_id STRING #-1
CONFIG proxy.config.http.cache.http INT 1
CONFIG proxy.config.url_remap.remap_required INT 1
CONFIG proxy.config.log.logging_enabled INT 0
EOF
        traffic_server --run-root="$dir/runroot.yaml" >"$dir/log" 2>&1 & ;;
    *)
        echo "'$1': expected replay-proxy, none, nginx, varnish, haproxy, squid, apache" \
            "or trafficserver" >&2
        exit 2 ;;
    esac
    [ "$1" = none ] || children+=($!)
}

for name in "${names[@]}"; do
    origin=$(free_port)
    front=$(free_port)
    (cd "$suite" && exec env npm_config_protocol=http npm_config_port="$origin" \
        npm_config_pidfile="$work/pid" node server/server.mjs >"$work/origin.log" 2>&1) &
    children+=($!)
    until_answers "$origin"
    start "$name" "$front" "$origin"
    [ "$name" != none ] || front=$origin
    until_answers "$front"
    (cd "$suite" && exec env npm_config_base="http://127.0.0.1:$front" npm_config_id= \
        npm_package_config_id= timeout 300 node --no-warnings cli.mjs >"$work/$name.json")
    node scripts/cache-tests-score.mjs "$suite" "$name" "$work/$name.json" $verbose
    kill "${children[@]}" 2>/dev/null || true
    wait "${children[@]}" 2>/dev/null || true
    children=()
done
