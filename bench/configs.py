"""The configurations of `proxies`: ``<words>`` are filled in."""

TRIO_PROXY = """
listen = "127.0.0.1:<port>"
<workers>

<servers>

[timeouts]
idle_ms = <idle>000
upstream_idle_ms = <idle>000
drain_ms = 1000

[limits]
max_client_conns = <clients>
max_conns_per_upstream = <upstreams>
max_head_bytes = 65536
"""

NGINX = """
<user>
worker_processes 1;
daemon off;
pid <directory>/nginx.pid;
error_log <directory>/error.log;
events { worker_connections <files>; }
http {
    access_log <directory>/access.log combined;
    tcp_nodelay on;
    keepalive_timeout <idle>s;
    keepalive_requests 100000000;
    client_max_body_size 0;
    large_client_header_buffers 8 64k;
    client_body_temp_path <directory>/body;
    proxy_temp_path <directory>/proxy;
    upstream origin {
<servers>
        keepalive <pool>;
        keepalive_requests 100000000;
        keepalive_timeout <idle>s;
    }
    map $http_upgrade $connection_upgrade {
        default upgrade;
        "" "";
    }
    server {
        listen 127.0.0.1:<port> backlog=4096;
        location / {
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host $http_host;
            proxy_request_buffering off;
            proxy_max_temp_file_size 0;  # no part of a large response goes to the disk
        }
    }
}
"""

HAPROXY = """
global
    nbthread 1
    no strict-limits  # it would want two files for every client
    maxconn <clients>
    log stdout format raw local0
defaults
    mode http
    log global
    option httplog
    option forwardfor
    http-reuse always
    timeout connect 1s
    timeout client <idle>s
    timeout server 15s
    timeout http-keep-alive <idle>s
    timeout http-request 10s
    timeout tunnel 300s
frontend clients
    bind 127.0.0.1:<port> backlog 4096
    http-request set-header X-Forwarded-Proto http
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    default_backend origin
backend origin
<servers>
"""

CADDY = """
{
    admin off
    auto_https off
    servers {
        timeouts {
            idle <idle>s
        }
    }
}
http://127.0.0.1:<port> {
    bind 127.0.0.1
    log {
        output file <directory>/access.log {
            roll_disabled
        }
    }
    reverse_proxy <servers> {
        transport http {
            versions 1.1
            keepalive <idle>s
            keepalive_idle_conns <upstreams>
            keepalive_idle_conns_per_host <upstreams>
            max_conns_per_host <upstreams>
        }
    }
}
"""
