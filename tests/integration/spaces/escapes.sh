# What the scripts of escapes.yml call.
# shellcheck shell=bash disable=SC2034
TTL=/proc/sys/net/ipv4/ip_default_ttl

knock() {
  python3 - "$@" <<'PYTHON'
import socket, sys
kind, to, port = sys.argv[1], sys.argv[2], sys.argv[3:]
family = socket.AF_UNIX if kind == "unix" else socket.AF_INET6 if ":" in to else socket.AF_INET
with socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM) as peer:
    peer.settimeout(3)
    peer.connect((to, int(port[0])) if port else to)
    peer.sendall(b"GET /_ping HTTP/1.0\r\n\r\n" if kind == "unix" else b"clawops-lab:escape;\r\n\r\n")
    sys.exit(not peer.recv(100))
PYTHON
}

trace() {
  python3 - <<'PYTHON'
import ctypes, pathlib, sys
victims = [int(path.parent.name) for path in pathlib.Path("/proc").glob("[0-9]*/cmdline")
           if path.read_bytes() == b"sleep\0" + b"86399\0"]
library = ctypes.CDLL(None, use_errno=True)
attached = [pid for pid in victims if library.ptrace(16, pid, None, None) == 0]
sys.exit(not attached)
PYTHON
}

forks() {
  python3 - "$1" <<'PYTHON'
import os, signal, sys, time
children = []
try:
    while len(children) < int(sys.argv[1]):
        child = os.fork()
        if child == 0:
            signal.pause()
        children.append(child)
except OSError:
    pass
for child in children:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
sys.exit(len(children) < int(sys.argv[1]))
PYTHON
}

memory() {
  python3 -c 'import sys; kept = [b"x" * 2**20 for _ in range(int(sys.argv[1]))]' "$1"
}

fill() {
  head -c "$2M" /dev/zero >"$1"
  local status=$?
  rm -f "$1"
  return $status
}
