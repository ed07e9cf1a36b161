# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Spaces on Docker hosts of the bed: the story of an operator, what can't be escaped from, and what goes wrong."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import pathlib
import re
import subprocess
import threading
import time

import pytest
from managed import HOSTS, ROOT, Managed
from spaces.ground import ESCAPES, NAMES, Ground

HERE = pathlib.Path(__file__).parent / "spaces"
TEMPLATES = {"small": {"resources": {"memory": "64Mi", "cpus": 0.5, "pids": 32, "tmp": "4Mi", "run": "1Mi"},
                       "network": {"mode": "none"}, "idle": {"after": 0}}}


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    here = Ground(tmp_path_factory.mktemp("ground"))
    Managed.bed("up", *(f"dockerhost:{host}" for host in HOSTS), "outside")
    here.clear()
    with here.neighbour():
        try:
            here.play(str(HERE / "site.yml"))
            for host in here.hosts.values():
                host.install()
            yield here
        finally:
            here.clear()


# -- the story --------------------------------------------------------------------------------------------------------


def test_a_second_run_changes_nothing(ground):
    assert ground.changes(ground.spaces()) == []
    assert ground.changes(ground.spaces("--check", "--tags", "spaces")) == []
    assert {name: ground.state(name)["State"]["Running"] for name in NAMES} == dict.fromkeys(NAMES, True)
    assert ground.host_of("scout").host == HOSTS[-1]


def test_work_in_a_space_as_an_operator_does_it(ground):
    host, control = ground.host_of("bench"), "planted-control"
    with ground.spied(host, [ground.token, control]) as seen:
        host.inside(f"python3 -c 'import time; time.sleep(0.5)' {control}")
        said = ground.play(str(HERE / "story.yml"), "-vvv", story_host=HOSTS[0], story_scratch=str(ground.scratch))
    assert seen == {("cmdline", control)}
    assert [line for line in said.splitlines() if ground.token in line or ground.secret in line] == []
    assert ground.pushed() == ["Two files", "Begin"]
    mine = [event for event in ground.events("bench") if event["job"] == "42"]
    assert {event["actor"] for event in mine} == {"ann"}
    assert list(dict.fromkeys(event["event"] for event in mine)) == ["space.exec", "space.file", "space.git"]


def test_a_space_sleeps_after_its_idle_time_and_wakes_by_an_exec(ground):
    host = ground.host_of("napper")
    assert host.inside("systemctl is-active clawops-space-sleep.timer") == "active\n"
    for _attempt in range(5):
        host.inside("systemctl start clawops-space-sleep.service")
        if ground.state("napper")["State"]["Paused"]:
            break
        time.sleep(2)
    assert ground.state("napper")["State"]["Paused"]
    # What sleeps is as it should be.
    assert ground.changes(ground.spaces("--check", "--tags", "spaces")) == []
    assert ground.run("napper", "echo awake").stdout == "awake\n"
    assert not ground.state("napper")["State"]["Paused"]
    told = [event["event"] for event in ground.events("napper")]
    assert told[0] == "space.create"
    # An exec begins before it wakes the space.
    assert told[-3:] == ["space.pause", "space.exec", "space.wake"]


def test_the_audit_log_has_all_of_it_in_order(ground):
    for name in NAMES:
        events = ground.events(name)
        assert [event["time"] for event in events] == sorted(event["time"] for event in events)
        assert events[0]["event"] == "space.create"
        assert {event["outcome"] for event in events} <= {"ok", "failed", "timeout"}
        assert all(event["actor"] for event in events)


def test_the_controller_has_a_log_of_its_own(ground):
    text = ground.log.read_text()
    entries = [json.loads(line) for line in text.splitlines()]
    assert {entry["event"] for entry in entries} == {"playbook.change"}
    assert {f"clawops.fleet.sandbox_{what}" for what in ("fleet", "file", "git")} <= {one["subject"] for one in entries}
    assert ground.secret not in text
    assert ground.token not in text


def test_what_is_typed_in_a_terminal_is_recorded_once(ground):
    host = ground.host_of("bench")
    word = f"typed-{time.time_ns()}"
    # What comes before the terminal is there is lost.
    host.inside(f"(sleep 3; printf 'echo {word}\\nexit\\n'; sleep 3) | "
                "script -qec 'clawops-space --actor ann sh bench' /dev/null")
    for _pass in range(2):
        host.inside("systemctl start clawops-space-history.service")
    typed = [event for event in ground.events("bench") if word in event.get("command", "")]
    assert [(event["event"], event["command"]) for event in typed] == [("space.shell", f"echo {word}")]


def test_what_was_rotated_is_still_told(ground):
    before = ground.events("bench")
    ground.host_of("bench").inside("logrotate --force /etc/logrotate.d/clawops-audit")
    assert ground.run("bench", "true").returncode == 0
    after = ground.events("bench")
    assert after[:len(before)] == before
    assert [event["event"] for event in after[len(before):]] == ["space.exec"]


@pytest.mark.full
def test_a_terminal_for_all_hosts(ground):
    def fleet(*words, data=b"", code=0):
        argv = [ROOT / "scripts/fleet", *ground.inventories(), *words]
        done = subprocess.run(argv, input=data, capture_output=True, check=False, timeout=120)
        assert done.returncode == code, done
        return done.stdout

    table = fleet("ls").decode()
    assert all(re.search(rf"\b{name}\b.*\b(started|running|asleep|paused)\b", table) for name in NAMES), table
    assert fleet("exec", "bench", "--", "tr", "a-z", "A-Z", data=b"words\n") == b"WORDS\n"
    fleet("exec", "bench", "--", "sh", "-c", "exit 3", code=3)
    (ground.scratch / "bytes").write_bytes(bytes(range(256)))
    fleet("cp", str(ground.scratch / "bytes"), "bench:/workspace/bytes")
    assert fleet("cp", "bench:/workspace/bytes", "-") == bytes(range(256))
    assert b"bench" in fleet("stats", "bench")
    fleet("logs", "bench")


@pytest.mark.full
def test_the_inventory_is_of_all_hosts_and_a_dead_one_costs_one_timeout(ground):
    (ground.scratch / "gone.yml").write_text("docker_hosts: {hosts: {gone: {ansible_host: 10.213.0.99}}}\n")
    (ground.scratch / "spaces.yml").write_text("plugin: clawops.fleet.spaces\ntimeout: 4\n")
    argv = ["ansible-inventory", *ground.inventories("gone", "spaces"), "--list"]
    began = time.monotonic()
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=120)
    took = time.monotonic() - began
    found = json.loads(done.stdout)["_meta"]["hostvars"]
    # What a host says of itself is no template, and marked so.
    assert {name: found[name]["fleet_observed"]["host"] for name in NAMES} == {
        name: {"__ansible_unsafe": ground.host_of(name).host} for name in NAMES}
    assert re.search(r"WARNING.*gone", done.stderr), done.stderr
    assert took < 20, took


def test_the_defaults_are_true_inside(ground):
    found = ground.state("bench")["HostConfig"]
    assert (found["ReadonlyRootfs"], found["Privileged"], found["CapDrop"]) == (True, False, ["ALL"])
    said = ground.run("bench", "grep -E '^(Uid|Cap...|NoNewPrivs|Seccomp):' /proc/self/status; cat /proc/mounts").stdout
    status = dict(line.split(":\t") for line in said.splitlines() if ":\t" in line)
    assert status["Uid"].split() == ["1001"] * 4
    assert {int(status[f"Cap{kind}"], 16) for kind in ("Eff", "Prm", "Bnd", "Inh", "Amb")} == {0}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    mounts = {line.split()[1]: set(line.split()[3].split(",")) for line in said.splitlines() if line.count(" ") >= 5}
    assert "ro" in mounts["/"]
    for place in ("/tmp", "/run"):  # noqa: S108
        assert {"noexec", "nosuid", "nodev"} <= mounts[place]
    assert "rw" in mounts["/workspace"]


# -- what can't be escaped from ---------------------------------------------------------------------------------------


def through(run, prelude, attempts):
    return [entry["name"] for entry in attempts if run(prelude + entry["script"]).returncode == 0]


@pytest.mark.parametrize("group", ESCAPES)
def test_no_attempt_gets_out_of_a_space_and_all_of_a_bare_container(ground, group):
    host, attempts = ground.host_of("bench"), ESCAPES[group]
    with contextlib.ExitStack() as stack:
        bare = stack.enter_context(ground.bare(host))
        stack.enter_context(listening(ground, "other"))
        with ground.answering(host):
            free = through(bare, ground.prelude(host, "escape-bare", "escape-bare-other"), attempts)
            out = through(lambda script: ground.run("bench", script),
                          ground.prelude(host, "clawdspace-bench", "clawdspace-other"), attempts)
    assert ([entry["name"] for entry in attempts if entry["name"] not in free], out) == ([], [])
    assert ground.run("bench", "echo still here").stdout == "still here\n"


@contextlib.contextmanager
def listening(ground, space):
    """A space that serves on a port, and has a process that others may want to trace."""
    script = "python3 -m http.server --directory /usr 8000 & exec sleep 86399"
    host = ground.host_of(space)
    pool = concurrent.futures.ThreadPoolExecutor()
    serving = pool.submit(ground.run, space, script, "--timeout", "100")
    try:
        (network,) = ground.state(space)["NetworkSettings"]["Networks"].values()
        knock = f"curl -fso /dev/null http://{network['IPAddress']}:8000/"
        host.inside(f"for _ in $(seq 50); do {knock} && exit; sleep 0.2; done; false")
        yield
    finally:
        host.inside("pkill -f 'sleep 86399$'", check=False)
        host.inside(f"docker exec clawdspace-{space} pkill -f http.server", check=False)
        serving.result()
        pool.shutdown()


def test_what_multiplies_without_end_ends_with_its_time(ground):
    host = ground.host_of("bench")
    with ground.answering(host):
        done = ground.run("bench", "bomb() { bomb | bomb & }; bomb; sleep 60", "--timeout", "4")
    assert done.returncode == 124
    assert ground.run("bench", "ls -d /proc/[0-9]* | wc -l").stdout.strip() in {"3", "4", "5", "6"}


def test_a_space_of_mode_lan_reaches_the_lan_and_what_is_blocked_is_not(ground):
    host = ground.host_of("scout")
    prelude = ground.prelude(host, "clawdspace-scout", "clawdspace-scout")

    def reaches(script):
        return ground.run("scout", prelude + script).returncode == 0

    assert reaches("knock tcp 10.213.0.66 80")
    for script in ("knock tcp $GATEWAY 22", "knock tcp $HOST4 22", "knock tcp 169.254.169.254 80",
                   "knock tcp 100.100.100.200 80", "knock tcp 168.63.129.16 80"):
        assert not reaches(script), script
    ground.describe(scout={"space_network": {"block": ["10.213.0.66"]}})
    ground.play(str(HERE / "site.yml"), "--tags", "guard")
    try:
        assert not reaches("knock tcp 10.213.0.66 80")
    finally:
        ground.describe()
        ground.play(str(HERE / "site.yml"), "--tags", "guard")
    assert reaches("knock tcp 10.213.0.66 80")


def test_a_space_without_a_network_has_none(ground):
    assert ground.run("vault", "ls /sys/class/net").stdout.split() == ["lo"]


# -- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.fixture
def host(ground):
    """The first host, without spaces of these tests before and after."""
    yield ground.first
    ground.first.inside("""names=$(docker ps -aq --filter name=clawdspace-fault)
        [ -z "$names" ] || docker rm -f $names
        docker volume ls -qf name=clawdspace-vol-fault | xargs -r docker volume rm
        rm -rf /var/lib/clawops/spaces/fault*""", check=False)


def fleet(names, **values):
    return {"fleet": "box", "templates": TEMPLATES,
            "spaces": [{"name": f"fault{name}", "template": "small", **values} for name in names]}


def converges(host, wanted):
    host.module("sandbox_fleet", **wanted)
    assert host.module("sandbox_fleet", check=True, **wanted)["actions"] == []
    names = sorted(f"clawdspace-{space['name']}" for space in wanted["spaces"])
    found = host.inside("docker ps -a --filter name=clawdspace-fault --format '{{.Names}}'").split()
    assert sorted(found) == (names if wanted["spaces"][0].get("state") != "absent" else [])


def killed(host, deaths):
    """Dies on the way to spaces, to other ones that need new containers, and to none; then gets there."""
    kills, written = 0, False
    ways = [fleet("ab"), fleet("ab", writable_root=True, recreate=True), fleet("ab", state="absent")]
    for number, death in enumerate(deaths):
        wanted = ways[number % len(ways)]
        kills += bool(host.start("sandbox_fleet", wanted, **death).get("killed"))
        converges(host, wanted)
        if number % len(ways) == 0:
            host.inside("docker exec clawdspace-faulta sh -c 'echo kept >>/workspace/kept'")
            written = True
        elif number % len(ways) == 1 and written:
            assert host.inside("docker exec clawdspace-faulta tail -n 1 /workspace/kept") == "kept\n"
    return kills


def identity(host):
    found = json.loads(host.inside("docker inspect clawdspace-faulta"))[0]
    return found["Id"], found["State"]["StartedAt"], found["State"]["Running"]


def test_what_can_not_be_is_said_before_anything_goes(host):
    converges(host, fleet("a"))
    before = identity(host)
    for values, code in (({"image": "nowhere:1"}, "no_image"), ({"gpu": "all"}, "no_gpu"),
                         ({"template": "nowhere"}, "bad_value"), ({"resources": {"memory": "2 geese"}}, "bad_value"),
                         ({"resources": {"cpus": 0}}, "bad_value"),
                         ({"workspace": {"strategy": "bind", "path": "/srv"}}, "bad_value")):
        result = host.start("sandbox_fleet", fleet("a", recreate=True, **values))
        assert (result.get("failed"), result["failure"]["code"]) == (True, code), result
    assert identity(host) == before


def test_what_can_change_while_it_runs_does(host):
    converges(host, fleet("a"))
    before = identity(host)
    converges(host, fleet("a", resources={"memory": "96Mi", "cpus": 0.25, "pids": 48}, restart="always"))
    found = json.loads(host.inside("docker inspect clawdspace-faulta"))[0]["HostConfig"]
    assert [found[key] for key in ("Memory", "MemorySwap", "NanoCpus", "PidsLimit")] == \
        [96 << 20, 96 << 20, 250000000, 48]
    assert found["RestartPolicy"]["Name"] == "always"
    assert identity(host) == before


FILES = "/srv/fault-files"
FOLDERS = f"""rm -rf {FILES}
mkdir -p {FILES}/bound {FILES}/project
chown 1001:1001 {FILES}/bound
ln -s /etc {FILES}/link
cd {FILES}/project
echo one >file
git init --quiet --initial-branch=main
git add file
git -c user.name=Ann -c user.email=ann@example.org commit --quiet --message=Begin"""


@pytest.mark.full
def test_directories_of_the_host_as_workspaces(host):
    host.inside(FOLDERS)
    wanted = fleet("abc")
    wanted["allowed_paths"] = [FILES]
    for space, (strategy, folder) in zip(wanted["spaces"],
                                         (("bind", "bound"), ("snapshot", "project"), ("worktree", "project"))):
        space["workspace"] = {"strategy": strategy, "path": f"{FILES}/{folder}"}
    try:
        converges(host, wanted)
        for name in "abc":
            host.inside(f"docker exec clawdspace-fault{name} sh -c 'echo two >/workspace/file'")
        assert host.inside(f"cat {FILES}/bound/file {FILES}/project/file") == "two\none\n"
        assert host.inside("docker exec clawdspace-faultc git -C /workspace status --short --branch") == \
            "## space/faultc\n M file\n"
        for path in (f"{FILES}/link", f"{FILES}/bound/../../../etc", "/srv"):
            bad = fleet("a", workspace={"strategy": "bind", "path": path}, recreate=True)
            result = host.start("sandbox_fleet", {**bad, "allowed_paths": [FILES]})
            assert (result.get("failed"), result["failure"]["code"]) == (True, "bad_value"), result
    finally:
        host.start("sandbox_fleet", {**fleet("abc", state="absent"), "purge_data": True})
    assert host.inside(f"cat {FILES}/bound/file && git -C {FILES}/project worktree list | wc -l") == "two\n1\n"
    host.inside(f"rm -r {FILES}")


def steps(host):
    """How many there are on each of the ways."""
    return [len(host.start("sandbox_fleet", fleet("ab", **values))["steps"])
            for values in ({}, {"writable_root": True, "recreate": True}, {"state": "absent"})]


def test_killed_at_some_points_it_converges(host):
    counts = steps(host)
    deaths = [{"die_at": count * part // 3} for part in (1, 2) for count in counts]
    assert killed(host, deaths) >= 4


@pytest.mark.full
def test_killed_at_every_point_it_converges(host):
    counts = steps(host)
    points = [{"die_at": min(at, count)} for at in range(1, max(counts) + 1) for count in counts]
    assert killed(host, points) > len(points) / 2


@pytest.mark.full
def test_an_engine_that_restarts_in_the_middle(host):
    for seconds in (0.3, 0.8, 1.5):
        with concurrent.futures.ThreadPoolExecutor() as pool:
            making = pool.submit(host.start, "sandbox_fleet", fleet("abcdef"))
            time.sleep(seconds)
            host.inside("systemctl restart docker")
            making.result()
        converges(host, fleet("abcdef"))
        converges(host, fleet("abcdef", state="absent", ))


def test_two_at_once_on_one_space_end_as_one_of_them(host):
    both = [fleet("a", env={"FEATHERS": colour}, recreate=True) for colour in ("black", "white")]
    for _round in range(3):
        with concurrent.futures.ThreadPoolExecutor() as pool:
            results = list(pool.map(lambda wanted: host.start("sandbox_fleet", wanted), both))
        assert any(not result.get("failed") for result in results), results
        left = [host.module("sandbox_fleet", check=True, **wanted)["actions"] for wanted in both]
        assert sorted(map(bool, left)) == [False, True], (results, left)


def test_no_exec_is_cut_by_the_sleep_worker(ground):
    host, stop = ground.host_of("napper"), threading.Event()

    def doze():
        """As a worker with no patience would, and somebody who pauses by hand."""
        while not stop.is_set():
            host.inside("clawops-space sleep", check=False)
            time.sleep(0.05)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        dozing = pool.submit(doze)
        try:
            for number in range(8):
                done = ground.run("napper", f"sleep 0.3; echo {number}")
                assert (done.returncode, done.stdout) == (0, f"{number}\n"), done
                time.sleep((0, 2.2)[number % 4 == 3])
        finally:
            stop.set()
            dozing.result()


def test_what_is_not_ours_is_refused_and_left_alone(host):
    host.inside("docker run -d --name clawdspace-fault0 --entrypoint sleep clawops-sandbox:latest infinity")
    before = json.loads(host.inside("docker inspect clawdspace-fault0"))[0]
    for values in ({}, {"state": "absent"}, {"state": "stopped"}, {"recreate": True, "env": {"A": "b"}}):
        result = host.start("sandbox_fleet", {**fleet("0", **values), "purge_data": True})
        assert result.get("failed"), result
        assert "clawdspace-fault0" in result["msg"]
    after = json.loads(host.inside("docker inspect clawdspace-fault0"))[0]
    assert (after["Id"], after["State"]["StartedAt"], after["Config"]) == \
        (before["Id"], before["State"]["StartedAt"], before["Config"])


# -- images -----------------------------------------------------------------------------------------------------------

BASE, FORMER, USED, FOREIGN = "clawops/sandbox-base:former", *(f"clawops-sandbox:{tag}" for tag in
                                                               ("former", "used", "foreign"))


@pytest.fixture
def images(ground):
    """Images as former releases left them, one of which a container has, and one that only has such a name."""
    host, label = ground.first, "--label clawops.fleet/managed=true"
    host.inside(f"""tar -c -C /etc hostname | docker import --change 'LABEL clawops.fleet/managed=true' - {BASE}
        for tag in {FORMER} {USED}; do
            printf 'FROM {BASE}\nENV TAG=%s\n' $tag | docker build --quiet {label} --tag $tag -
        done
        tar -c -C /etc hostname | docker import - {FOREIGN}
        docker create --name former-images {USED} true""")
    yield host
    host.inside(f"docker rm former-images; docker image rm {FORMER} {USED} {FOREIGN} {BASE}", check=False)


@pytest.mark.full
def test_former_images_go_with_the_last_container_that_has_them(ground, images):
    def left_after(mislabelled):
        images.inside(f"docker tag {mislabelled} clawops-sandbox:latest")
        said = ground.spaces("--tags", "sandbox", "--limit", images.host)
        assert ground.changes(said) == ["clawops.fleet.sandbox_host : Build it"]
        assert images.inside("docker image inspect --format '{{.Config.User}}' clawops-sandbox:latest") == "1001:1001\n"
        listed = images.inside("docker image ls --format '{{.Repository}}:{{.Tag}}'").split()
        return {BASE, FORMER, USED, FOREIGN} & set(listed)

    assert left_after(FORMER) == {BASE, USED, FOREIGN}
    images.inside("docker rm former-images")
    assert left_after(USED) == {FOREIGN}
    assert ground.changes(ground.spaces("--limit", images.host)) == []


# -- secrets ----------------------------------------------------------------------------------------------------------

SEARCHED = "/etc /home /opt /root /run /srv /tmp /usr/local /var/lib/clawops /var/lib/docker /var/log /var/tmp"


def test_planted_secrets_are_nowhere_else(ground):
    host = ground.host_of("bench")
    host.inside(f"mkdir -p /var/log/planted && printf %s {ground.token} >/var/log/planted/control")
    said = {}
    for secret in (ground.secret, ground.token):
        # The pattern by standard input: an argument is the kind of place that is searched.
        search = f"grep -rlaF --devices=skip -f - {SEARCHED} 2>/dev/null || :"
        said[secret] = host.inside(search, secret.encode()).split()
    host.inside("rm -r /var/log/planted")
    assert said[ground.token] == ["/var/log/planted/control"]
    assert said[ground.secret] == ["/var/lib/clawops/spaces/bench/secrets/environment"]
    inspected = host.inside("docker inspect $(docker ps -aq); docker volume inspect $(docker volume ls -q)")
    assert ground.secret not in inspected
    assert ground.token not in inspected
    assert host.inside("stat -c '%a %u' /var/lib/clawops/spaces/bench/secrets/environment") == "400 1001\n"
