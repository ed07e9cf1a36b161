# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where spaces go, and what playbooks make of their descriptions."""

from __future__ import annotations

import itertools
import typing as t

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.clawops.fleet.plugins.filter import spaces as filters

GIB = 1024**3
NO_GPU = {"count": 0, "names": [], "memory": [], "ready": False}
GPU = {"count": 2, "names": ["A", "B"], "memory": [24 * GIB] * 2, "ready": True}
Tree = dict[str, t.Any]


def host(*spaces: str | tuple[str, str], free: float = 16, cpus: float = 8, **more: t.Any) -> Tree:
    """What a host with 32 GiB and 8 processors answers."""
    facts = {"memory": 32 * GIB, "cpus": 8, "free": {"memory": int(free * GIB), "cpus": cpus}, "gpu": NO_GPU, **more}
    states = [(one, "started") if isinstance(one, str) else one for one in spaces]
    return {"host": facts, "spaces": [{"name": name, "state": state} for name, state in states if state != "absent"],
            "volumes": [name for name, _state in states]}


def space(name: str = "one", memory: str = "2Gi", **more: t.Any) -> Tree:
    return {"name": name, "resources": {"memory": memory}, **more}


def placed(spaces: list[Tree], hosts: t.Mapping[str, Tree | None], **more: t.Any) -> dict[str, str]:
    result = filters.place_spaces(spaces, hosts, **more)
    assert result["waiting"] == {}
    return result["hosts"]


def refused(spaces: list[Tree], hosts: t.Mapping[str, Tree | None], **more: t.Any) -> str:
    with pytest.raises(AnsibleFilterError) as error:
        filters.place_spaces(spaces, hosts, **more)
    return str(error.value)


# -- the order of reasons -----------------------------------------------------------------------------------------

def test_the_named_host_is_taken_even_if_it_is_full() -> None:
    assert placed([space(on="birch")], {"alder": host(), "birch": host(free=0)}) == {"one": "birch"}


def test_a_space_stays_where_it_is() -> None:
    assert placed([space()], {"alder": host(), "birch": host("one", free=0)}) == {"one": "birch"}


def test_a_volume_holds_a_space_too() -> None:
    assert placed([space()], {"alder": host(), "birch": host(("one", "absent"), free=0)}) == {"one": "birch"}


def test_a_gpu_is_where_there_is_one() -> None:
    hosts = {"alder": host(free=30), "birch": host(gpu=GPU), "cedar": host(free=30, gpu={**GPU, "ready": False})}
    assert placed([space(gpu="all"), space("two", template="gpu")], hosts) == {"one": "birch", "two": "birch"}


@pytest.mark.parametrize(("alder", "birch", "taken"), [
    (host(free=8), host(free=9), "birch"),
    (host(cpus=4), host(cpus=5), "birch"),
    (host(), host(), "alder"),
    (host(free=30, cpus=-3), host(free=9), "alder"),
])
def test_otherwise_it_is_most_free_room(alder: Tree, birch: Tree, taken: str) -> None:
    assert placed([space()], {"birch": birch, "alder": alder}) == {"one": taken}


# -- several at once ----------------------------------------------------------------------------------------------

def test_each_one_sees_what_was_promised_to_the_others() -> None:
    spaces = [space(name, "6Gi") for name in ("one", "two", "three", "four")]
    assert placed(spaces, {"alder": host(free=13), "birch": host(free=12)}) == {
        "four": "alder", "one": "birch", "three": "alder", "two": "birch"}


def test_the_order_of_spaces_and_hosts_means_nothing() -> None:
    spaces = [space("one", "1Gi"), space("two", "4Gi"), space("three", "2Gi"), space("four", "4Gi", on="alder")]
    hosts = {"alder": host(free=9), "birch": host(free=8), "cedar": host(free=8)}
    results = {str(sorted(placed(list(some), dict(where)).items()))
               for some in itertools.permutations(spaces) for where in itertools.permutations(hosts.items())}
    assert len(results) == 1


def test_those_without_a_choice_come_first() -> None:
    spaces = [space("one", "4Gi"), space("two", "2Gi", on="alder"), space("three", "3Gi")]
    hosts = {"alder": host(("three", "absent"), free=8), "birch": host(free=5)}
    assert placed(spaces, hosts) == {"one": "birch", "two": "alder", "three": "alder"}


def test_a_host_may_lend_more_than_it_has() -> None:
    hosts = {"alder": host(free=1)}
    assert "No host has room for one (2.0Gi of memory, 1 processors): alder: 1.0Gi of memory are free." in refused(
        [space()], hosts)
    assert placed([space()], hosts, overcommit=1.5) == {"one": "alder"}


# -- refusals -----------------------------------------------------------------------------------------------------

def test_a_refusal_has_a_reason_for_each_host() -> None:
    hosts = {"alder": host(), "birch": host(gpu={**GPU, "count": 1}), "cedar": host(gpu={**GPU, "ready": False}),
             "elm": host(gpu=GPU, free=1)}
    assert refused([space(gpu=2)], hosts) == (
        "No host has room for one (2.0Gi of memory, 1 processors, 2 GPU): alder: it has no GPU; birch: it has 1 GPU; "
        "cedar: its engine has nothing that hands a GPU to a container; elm: 1.0Gi of memory are free.")
    assert "alder: it has 8 processors" in refused([space(resources={"cpus": 9})], {"alder": host()})
    assert "there is no host" in refused([space()], {})


def test_all_refusals_are_told_at_once() -> None:
    words = refused([space("one", "90Gi"), space("two", on="oak")], {"alder": host()})
    assert "No host has room for one" in words
    assert "space_on: oak is refused for two: it is not one of alder." in words


def test_a_directory_of_a_host_is_of_one_host() -> None:
    bind = space(workspace={"strategy": "bind", "path": "/srv/data"})
    assert "one works on /srv/data of a host: say with space_on of which one." in refused([bind], {"alder": host()})
    assert placed([{**bind, "on": "alder"}], {"alder": host()}) == {"one": "alder"}


def test_a_space_never_moves_and_no_twin_is_made() -> None:
    words = refused([space(on="birch")], {"alder": host("one"), "birch": host()})
    assert words.startswith("space_on: birch is refused for one: it stands on alder. Put space_on back")
    assert "purge_data" in words


def test_what_the_named_host_can_never_do_is_refused() -> None:
    assert "it has no GPU" in refused([space(on="alder", gpu="all")], {"alder": host()})


def test_a_twin_that_is_there_is_for_the_operator_to_decide() -> None:
    hosts = {"alder": host("one"), "birch": host("one")}
    assert "one stands on alder, birch: say with space_on which one is meant." in refused([space()], hosts)
    assert placed([space(on="birch")], hosts) == {"one": "birch"}


# -- hosts that do not answer -------------------------------------------------------------------------------------

@pytest.mark.parametrize("silence", [None, {}, {"failed": True, "msg": "no engine"}, {"unreachable": True}])
def test_a_space_that_a_silent_host_may_have_waits_and_others_go_on(silence: Tree | None) -> None:
    spaces = [space(), space("two"), space("three", on="alder"), space("four", on="birch")]
    result = filters.place_spaces(spaces, {"alder": host("two"), "birch": silence})
    assert result["hosts"] == {"two": "alder", "three": "alder", "four": "birch"}
    assert list(result["waiting"]) == ["one"]
    assert result["waiting"]["one"].startswith("birch did not answer and may have it. A new one elsewhere would be its "
                                               "empty twin.")


def test_a_space_that_is_to_go_needs_no_place() -> None:
    gone = space(state="absent")
    assert placed([gone], {"alder": host()}) == {}
    assert placed([gone], {"alder": host(("one", "absent"))}) == {"one": "alder"}
    assert "nobody knows whether it is gone" in filters.place_spaces(
        [gone], {"alder": host(), "birch": None})["waiting"]["one"]


def test_one_space_by_itself() -> None:
    assert filters.place_space(space(), {"alder": host()}) == "alder"
    assert filters.place_space(space(state="absent"), {"alder": host()}) == ""
    with pytest.raises(AnsibleFilterError, match="one: alder did not answer"):
        filters.place_space(space(), {"alder": None})


def test_a_host_gets_those_that_were_placed_there() -> None:
    spaces = [space("one", on="alder"), space("two")]
    result = filters.place_spaces(spaces, {"alder": host(), "birch": host(free=20)})
    assert filters.spaces_on(spaces, "alder", result) == [space("one")]
    assert filters.spaces_on(spaces, "birch", result) == [space("two")]


# -- descriptions -------------------------------------------------------------------------------------------------

def hostvars(name: str, **more: t.Any) -> Tree:
    return {"inventory_hostname": name, "ansible_host": "192.0.2.1", **more}


def test_a_description_is_without_the_prefix() -> None:
    found = filters.space_descriptions([hostvars("one", space_on="alder", space_template="big")], {"big": {}})
    assert found == [{"name": "one", "on": "alder", "template": "big"}]


def test_descriptions_of_some_in_another_state() -> None:
    spaces = [hostvars("one", space_template="nonsense"), hostvars("two", space_state="paused"), hostvars("three")]
    assert filters.space_descriptions(spaces, only=["two", "three"], state="stopped") == [
        {"name": "two", "state": "stopped"}, {"name": "three", "state": "stopped"}]
    with pytest.raises(AnsibleFilterError, match="space_state: 'asleep'"):
        filters.space_descriptions(spaces, only=["two"], state="asleep")


@pytest.mark.parametrize(("values", "words"), [
    ({"space_imagee": "x"}, "one: space: 'imagee' is not accepted"),
    ({"space_name": "two"}, "one: space_name is two. Spaces of group spaces have no other name."),
    ({"space_template": "huge"}, "one: space_template: 'huge' is not accepted"),
    ({"space_resources": {"memory": "lots"}}, "one: space_resources.memory: 'lots' is not accepted"),
    ({"space_resources": {"cpus": 0}}, "one: space_resources.cpus"),
])
def test_a_bad_description_is_refused_by_name(values: Tree, words: str) -> None:
    with pytest.raises(AnsibleFilterError, match=words):
        filters.space_descriptions([hostvars("one", **values)])


def test_a_refusal_never_shows_a_secret() -> None:
    for values in ({"space_secret_env": {"A": {"b": "hunter2"}}}, {"space_secret_env": ["hunter2"]}):
        with pytest.raises(AnsibleFilterError) as error:
            filters.space_descriptions([hostvars("one", **values)])
        assert "hunter2" not in str(error.value)


def test_own_templates_stand_beside_and_over_those_of_the_collection() -> None:
    found = filters.space_templates({"big": {"resources": {"memory": "9Gi"}}, "lan": {"gpu": "all"}})
    assert set(found) >= {"default", "gpu", "offline", "lan", "big"} and found["lan"] == {"gpu": "all"}
    with pytest.raises(AnsibleFilterError, match=r"templates\.big"):
        filters.space_templates({"big": {"nmae": "x"}})


# -- the guard ----------------------------------------------------------------------------------------------------

def test_the_guard_has_a_rule_for_each_bridge_that_differs() -> None:
    spaces = [hostvars("one"), hostvars("two", space_template="lan"),
              hostvars("three", space_network={"block": ["198.51.100.0/24"]}),
              hostvars("four", space_network={"mode": "none", "block": ["198.51.100.0/24"]}),
              hostvars("five", space_network={"mode": "lan", "block": ["192.168.7.0/24"]}, space_state="absent")]
    two, three, five = filters.space_reach(spaces)
    assert two == {"interface": "cs-3fc4ccfe", "block": [],
                   "allow": ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"]}
    assert (three["allow"], three["block"]) == ([], ["198.51.100.0/24"])
    assert five["block"] == ["192.168.7.0/24"] and "192.168.0.0/16" in five["allow"]
