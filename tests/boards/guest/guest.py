"""A qemu guest with codling on its card, driven from outside: its console, a root shell and codling's two ports, all on
127.0.0.1. The guest reaches nothing else."""

import base64
import hashlib
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time

TOKEN = "a-token-for-the-guests-0123456789"
# How long anything may take before a test gives up. Generous: emulation on shared machines.
PATIENCE = 900


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def boot_config(results_port, kind):
    """What a user writes to the boot partition: reached from outside, and room for output or hardly any."""
    config = {
        "API": {"Host": "0.0.0.0", "Auth": {"Token": TOKEN}},
        "Publishers": {"Types": {"Local": {"Bind": "0.0.0.0", "Address": f"127.0.0.1:{results_port}"}}},
        "Compute": {"MaxLogSize": "128MiB"},
    }
    if kind == "small":
        # Results make room for each other all the time.
        config["Results"] = {"Quota": "24Mi", "MinFree": "1Mi"}
        config["Compute"] |= {"JobDisk": "4Mi", "MaxExecutions": 2, "RestartPause": 0}
    return json.dumps(config, indent=2) + "\n"


def eventually(what, ask, patience=PATIENCE, pause=0.05):
    """Asks a peer that offers no event until it answers; the pause only keeps it from being flooded."""
    deadline = time.monotonic() + patience
    while True:
        answer = ask()
        if answer is not None:
            return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited too long for {what}")
        time.sleep(pause)


class Guest:
    def __init__(self, name, machine, memory, files, card, ports, work, disks=(), words=""):
        self.name, self.work = name, work
        self.shell_port, self.api_port, self.results_port = ports
        forward = "".join(
            f",hostfwd=tcp:127.0.0.1:{outside}-:{inside}"
            for outside, inside in zip(ports, (2323, 1234, 6001))
        )
        network = ["-netdev", f"user,id=net,restrict=on{forward}"]
        if machine == "virt":
            console = "ttyAMA0"
            arguments = ["-M", "virt", "-cpu", "cortex-a53", "-nodefaults", "-serial", "stdio"]
            arguments += ["-drive", f"file={card},if=none,id=card,format=raw,cache=unsafe"]
            arguments += ["-device", "virtio-blk-pci,drive=card"]
            network += ["-device", "virtio-net-pci,netdev=net,romfile="]
        else:
            console = "ttyS1,115200"
            arguments = ["-M", machine, "-serial", "null", "-serial", "stdio", "-dtb", f"{files}/{machine}.dtb"]
            arguments += ["-drive", f"file={card},if=sd,format=raw,cache=unsafe"]
            network += ["-device", "usb-net,netdev=net"]
        # A machine that emulates slowly is no reason for the guest's system to give up.
        patience = f"systemd.default_timeout_start_sec={PATIENCE} udev.event_timeout={PATIENCE}"
        words = f"console={console} root=LABEL=rootfs quiet {patience} {words}".strip()
        self.command = ["qemu-system-aarch64", *arguments, "-m", memory, "-display", "none", "-no-reboot"]
        self.command += ["-kernel", f"{files}/{machine}.kernel", "-initrd", f"{files}/{machine}.initrd"]
        self.command += ["-append", words, *network, *disks]
        self.lines, self.news = [], threading.Condition()
        self.process = None

    def __enter__(self):
        self.began = time.monotonic()
        # A test that is told to end takes its guest along.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, kind, error, trace):
        if kind and kind is not SystemExit:
            tell = [f"--- {self.name}: {error}", "--- end of its console:", *self.lines[-30:]]
            try:
                tell.append(self.shell("journalctl -u codling -n 40 --no-pager; systemctl --failed --no-pager", 20))
            except OSError as problem:
                tell.append(f"(and no shell: {problem})")
            print(*tell, sep="\n", file=sys.stderr, flush=True)
        self.cut()

    def _listen(self):
        for line in self.process.stdout:
            with self.news:
                self.lines.append(line.decode(errors="replace").rstrip())
                self.news.notify_all()
        with self.news:
            self.news.notify_all()

    def wait_console(self, text, patience=PATIENCE):
        """Waits for a line of the console with this text."""
        deadline = time.monotonic() + patience
        with self.news:
            while True:
                for line in self.lines:
                    if text in line:
                        return line
                if self.process.poll() is not None:
                    raise RuntimeError(f"{self.name}: qemu ended with {self.process.returncode}")
                if not self.news.wait(deadline - time.monotonic()):
                    raise TimeoutError(f"{self.name}: no '{text}' on the console")

    def cut(self):
        """The power goes: nothing that the guest had not written is written."""
        if self.process and self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def shell(self, script, patience=PATIENCE):
        """Runs a script as root in the guest; returns what it printed."""
        with socket.create_connection(("127.0.0.1", self.shell_port), 10) as link:
            link.settimeout(patience)
            link.sendall(f"{{ {script}\n}} 2>&1\nexit\n".encode())
            out = bytearray()
            while chunk := link.recv(65536):
                out += chunk
        return out.decode(errors="replace")

    def http(self, method, port, path, body=None, patience=PATIENCE):
        """One request; status and body."""
        link = http.client.HTTPConnection("127.0.0.1", port, timeout=patience)
        try:
            headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
            link.request(method, path, None if body is None else json.dumps(body), headers)
            answer = link.getresponse()
            return answer.status, answer.read()
        finally:
            link.close()

    def api(self, method, path, body=None):
        status, answer = self.http(method, self.api_port, path, body)
        assert status == 200, f"{self.name}: {method} {path}: {status} {answer[:500]}"
        return json.loads(answer or b"null")

    def wait_ready(self):
        """Waits until /readyz answers 200 from outside; returns seconds since the power went on."""

        def ask():
            try:
                status, _ = self.http("GET", self.api_port, "/readyz", patience=5)
            except (OSError, http.client.HTTPException):
                if self.process.poll() is not None:
                    raise RuntimeError(f"{self.name}: qemu ended with {self.process.returncode}") from None
                if any("emergency mode" in line or "Kernel panic" in line for line in self.lines):
                    raise RuntimeError(f"{self.name}: the system does not come up") from None
                return None
            return status == 200 or None

        eventually(f"{self.name}: /readyz", ask, pause=0.2)
        return time.monotonic() - self.began

    def submit(self, job):
        return self.api("PUT", "/api/v1/orchestrator/jobs", {"Job": job})["JobID"]

    def wait_job(self, job_id, wanted="Completed"):
        def ask():
            state = self.api("GET", f"/api/v1/orchestrator/jobs/{job_id}")["Job"]["State"]
            return state if state["StateType"] in ("Completed", "Failed", "Stopped") else None

        state = eventually(f"{self.name}: job {job_id}", ask, pause=0.02)
        assert state["StateType"] == wanted, f"{self.name}: {job_id}: {state}"

    def row(self, job_id):
        """What the node's ledger says of a job's result."""
        rows = self.api("GET", "/api/v1/codling/results?limit=100000")["Items"]
        return next(row for row in rows if row["JobID"] == job_id)

    def fetch(self, job_id):
        """Fetches a job's result from the address that the node gives, and checks its digest; its files by name."""
        row = self.row(job_id)
        given = self.api("GET", f"/api/v1/orchestrator/jobs/{job_id}/results")["Items"]
        url = given[0]["Params"]["URL"]
        prefix = f"http://127.0.0.1:{self.results_port}/"
        assert url.startswith(prefix), url
        status, archive = self.http("GET", self.results_port, "/" + url[len(prefix):])
        assert status == 200, f"{url}: {status}"
        digest = hashlib.sha256(archive).hexdigest()
        assert digest == row["SHA256"], f"{url}: {digest}, the node says {row['SHA256']}"
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            files = {m.name.removeprefix("./"): tar.extractfile(m).read() for m in tar if m.isfile()}
        return files, digest


def assemble(wat, folder):
    """The module of a program in WebAssembly's text form."""
    name = os.path.join(folder, hashlib.sha256(wat.encode()).hexdigest()[:16])
    with open(f"{name}.wat", "w", encoding="ascii") as file:
        file.write(wat)
    subprocess.run(["wat2wasm", f"{name}.wat", "-o", f"{name}.wasm"], check=True)
    with open(f"{name}.wasm", "rb") as file:
        return file.read()


def wasm_job(module, **resources):
    """A batch job that runs a module and publishes its output on the board."""
    url = "data:application/wasm;base64," + base64.b64encode(module).decode()
    task = {
        "Name": "main",
        "Engine": {"Type": "wasm", "Params": {
            "EntryModule": {"Source": {"Type": "inline", "Params": {"URL": url}}}, "Entrypoint": "_start"}},
        "Publisher": {"Type": "local"},
    }
    if resources:
        task["Resources"] = resources
    return {"Type": "batch", "Count": 1, "Tasks": [task]}


NOOP = '(module (memory (export "memory") 1) (func (export "_start")))'
LOOP = '(module (memory (export "memory") 1) (func (export "_start") (loop $l (br $l))))'


def prints(text):
    data = "".join(f"\\{byte:02x}" for byte in text.encode())
    return f"""(module
      (import "wasi_snapshot_preview1" "fd_write" (func $w (param i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 1)
      (data (i32.const 16) "{data}")
      (func (export "_start")
        (i32.store (i32.const 0) (i32.const 16))
        (i32.store (i32.const 4) (i32.const {len(text.encode())}))
        (drop (call $w (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"""


def noise(kib):
    """Writes so much that does not compress to standard output, 64 KiB at a time."""
    return f"""(module
      (import "wasi_snapshot_preview1" "fd_write" (func $w (param i32 i32 i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "random_get" (func $r (param i32 i32) (result i32)))
      (memory (export "memory") 2)
      (func (export "_start") (local $n i32)
        (i32.store (i32.const 0) (i32.const 65536))
        (i32.store (i32.const 4) (i32.const 65536))
        (local.set $n (i32.const {kib // 64}))
        (loop $more
          (drop (call $r (i32.const 65536) (i32.const 65536)))
          (drop (call $w (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
          (local.set $n (i32.sub (local.get $n) (i32.const 1)))
          (br_if $more (local.get $n)))))"""


if __name__ == "__main__":
    if sys.argv[1] == "ports":
        print(*free_ports(3), sep=",")
    elif sys.argv[1] == "settings":
        print(boot_config(int(sys.argv[2]), sys.argv[3]), end="")
