"""Parts of a scan on a Ray cluster; `benchmarks/ray_cluster.py` runs real clusters, kills and node failures."""

import signal
import socket
import sys
from collections import deque
from dataclasses import replace
from types import SimpleNamespace

import pytest
from PIL import Image

import layeralign
from faulty import OpenAI, a_run, serving
from layeralign import LayeralignError
from layeralign.cases.case import Case
from layeralign.cases.pictures import read
from layeralign.cli import main
from layeralign.judges.judge import Judge, Judgement
from layeralign.runs.columns import VERDICTS
from layeralign.runs.opening import create
from layeralign.runs.store import Row
from layeralign.sweep import cluster
from layeralign.sweep.cluster import ROWS, PooledJudge, parts
from layeralign.sweep.pool import Cluster, Pool, connected, differing
from layeralign.sweep.sweep import WORKERS, _session, judge
from layeralign.testbed.cases import cases


def queries(n, exits=3):
    return [(case, exit, 0) for case in cases("dev", n) for exit in range(exits)]


def test_parts_hold_every_query_once_and_never_split_a_picture():
    asked = queries(60)
    made = parts(asked, 2)
    assert [query for part in made for query in part] == asked
    pictures = [{case.picture.sha256 for case, _, _ in part} for part in made]
    assert sum(map(len, pictures)) == len(set.union(*pictures))
    assert 8 <= len(made) <= 10 and parts([], 2) == []


def test_a_picture_with_more_rows_than_a_part_is_split():
    case = cases("dev", 1)[0]
    made = parts([(case, 0, sample) for sample in range(2 * ROWS + 1)], 1)
    assert [len(part) for part in made] == [ROWS, ROWS, 1]


def test_what_differs_is_named():
    same = {"identity": {"dtype": "float32", "files": {"a": "1"}}, "versions": {"torch": "2"}}
    assert differing(same, same) == ""
    assert (
        differing(same, same | {"identity": {"dtype": "float32", "files": {"a": "2"}}}) == "identity files a"
    )
    assert differing(same, same | {"versions": {}}) == "versions torch"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("--workers 2", "belong to ray, which is not given"),
        ("--ray auto --workers 0", "workers 0: expected at least 1"),
        ("--ray auto --gpus-per-worker=-1", "gpus_per_worker -1.0: expected 0, or 0.0001 or more"),
        ("--ray auto --gpus-per-worker=nan", "gpus_per_worker nan: expected 0, or 0.0001 or more"),
        ("--ray auto --gpus-per-worker=1e-320", "expected 0, or 0.0001 or more"),
        ("--ray nowhere", "expected auto, local, HOST:PORT or ray://HOST:PORT"),
        ("--ray auto --screen", "--screen and --quantize: work in one process"),
    ],
)
def test_bad_flags_are_one_sentence(tmp_path, capfd, monkeypatch, given, says):
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace())
    words = f"scan --model testbed --cases testbed --limit 4 --out {tmp_path / 'run'} {given}".split()
    assert main(words) == 1
    said = capfd.readouterr().err
    assert says in said.replace("\n", " ") and "Traceback" not in said and not (tmp_path / "run").exists()


def test_a_cluster_that_is_not_there_is_named_at_once(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace())
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        with (
            pytest.raises(LayeralignError, match="nothing answers there"),
            connected(Cluster(address)),
        ):
            pass


def test_ray_does_not_take_our_signals(monkeypatch):
    """Ray's own handler ended a scan with exit code 15, and without a word on how to resume it."""

    def init(**_):
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init, shutdown=lambda: None))
    before = signal.getsignal(signal.SIGTERM)
    try:
        with connected(Cluster("local")):
            assert signal.getsignal(signal.SIGTERM) is before
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_cluster_that_does_not_start_is_one_sentence(monkeypatch):
    """Ray raises a plain exception where a machine is too busy, which was called a bug in layeralign."""

    def init(**_):
        raise Exception("The current node timed out during startup.\nMore.")  # noqa: TRY002

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init, shutdown=lambda: None))
    with (
        pytest.raises(LayeralignError, match=r"ray local: .* timed out during startup; start one"),
        connected(Cluster("local")),
    ):
        pass


def test_a_result_that_is_lost_with_its_node_is_made_again(monkeypatch):
    """A large result stays on its worker's node, so the node's loss was called a bug in layeralign."""
    about = {"kind": "doubling", "node": "a"}
    ray = Ray([about, about, Ray.ObjectLostError("its node died"), [4]])
    monkeypatch.setitem(sys.modules, "ray", ray)
    made = Pool(Cluster("auto"), Doubling).map([1, 2, 3])
    assert sorted(made) == [(0, [2]), (1, [4]), (2, [6])] and len(ray.killed) == 1


def test_a_cluster_without_a_node_is_not_waited_for(monkeypatch):
    """The raylet of `--ray local` was killed, and the scan waited for a new worker for ever, without a word."""
    about = {"kind": "doubling", "node": "a"}
    ray = Ray([about, about, Ray.RayActorError("its node died")])
    monkeypatch.setitem(sys.modules, "ray", ray)
    ray.wait = lambda refs, **_: ([], refs) if ray.killed else ([refs[0]], refs[1:])
    pool = Pool(Cluster("auto"), Doubling)
    ray.nodes = lambda: [{"Alive": False}]
    with pytest.raises(LayeralignError, match="no node of the cluster is alive"):
        list(pool.map([1]))


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(LayeralignError, match=r"pip install 'layeralign\[ray\]'"),
        connected(Cluster("auto")),
    ):
        pass


@pytest.mark.slow
def test_a_loaded_model_cannot_be_sent(llava_dir, tmp_path):
    vlm = layeralign.load(llava_dir)
    with pytest.raises(LayeralignError, match="ray, engine and adapter need the model's folder"):
        layeralign.scan(vlm, "testbed", tmp_path / "run", limit=4, ray="auto")


class Ray:
    """A stand-in for Ray that does what it is asked in order, in this process; `fates` are the workers' ends."""

    class RayError(Exception):
        pass

    class RayActorError(RayError):
        pass

    class ObjectLostError(RayError):
        pass

    class RayTaskError(RayError):
        pass

    def __init__(self, fates, cpus=2):
        self.fates, self.cpus, self.results, self.killed = deque(fates), cpus, {}, []
        self.exceptions = self

    def cluster_resources(self):
        return {"CPU": self.cpus}

    def nodes(self):
        return [{"Alive": True}, {"Alive": True}, {"Alive": False}]

    def remote(self, kind):
        ray = self

        class Method:
            def __init__(self, call):
                self.call = call

            def remote(self, *given):
                ref = object()
                ray.results[ref] = ray.fates.popleft() if ray.fates else self.call(*given)
                return ref

        class Actor:
            def __init__(self, *given):
                self._made = kind(*given)
                self.about, self.do = Method(self._made.about), Method(self._made.do)

        handle = SimpleNamespace(remote=Actor)
        return SimpleNamespace(options=lambda **_: handle)

    def wait(self, refs, num_returns, timeout):
        return [refs[0]], refs[1:]

    def get(self, ref):
        found = self.results.pop(ref)
        if isinstance(found, Exception):
            raise found
        return found

    def kill(self, actor):
        self.killed.append(actor)


class Doubling:
    def __init__(self, node="a"):
        self._node = node

    def about(self):
        return {"kind": "doubling", "node": self._node}

    def do(self, part):
        return [2 * part]


def test_a_part_of_a_dead_worker_is_done_again(monkeypatch):
    about = {"kind": "doubling", "node": "a"}
    ray = Ray([about, about, Ray.RayActorError("out of memory"), [4]])
    monkeypatch.setitem(sys.modules, "ray", ray)
    pool = Pool(Cluster("auto"), Doubling)
    assert pool.size == 2 and pool.about() == {"kind": "doubling"}
    assert sorted(pool.map([1, 2, 3, 4, 5])) == [(0, [2]), (1, [4]), (2, [6]), (3, [8]), (4, [10])]
    assert len(ray.killed) == 1
    assert sum(items for items, _ in pool.did.values()) == 5 and all(
        name.endswith("on a") for name in pool.did
    )


def test_workers_that_die_one_after_the_other_end_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", Ray(50 * [Ray.RayActorError("out of memory\nmore")]))
    with pytest.raises(LayeralignError, match=r"7 workers died one after the other: out of memory$"):
        list(Pool(Cluster("auto"), Doubling).map([1]))


def test_what_a_worker_refuses_is_said_as_it_is(monkeypatch):
    refused = Ray.RayTaskError("a long traceback")
    refused.cause = LayeralignError("model x: does not exist")
    monkeypatch.setitem(sys.modules, "ray", Ray([refused]))
    with pytest.raises(LayeralignError, match=r"^model x: does not exist$"):
        Pool(Cluster("auto"), Doubling).about()


def test_a_worker_that_differs_is_refused(monkeypatch):
    other = {"kind": "other", "node": "evil\x1b[2J"}
    monkeypatch.setitem(sys.modules, "ray", Ray([{"kind": "doubling", "node": "a"}, other]))
    with pytest.raises(LayeralignError, match="has another kind than the first") as raised:
        list(Pool(Cluster("auto"), Doubling).map([1, 2]))
    assert "\x1b" not in str(raised.value)


def test_more_workers_than_room_are_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", Ray([]))
    with pytest.raises(LayeralignError, match="has 2 CPUs and 0 GPUs, too few for 3 workers"):
        Pool(Cluster("auto", workers=3), Doubling)
    with pytest.raises(LayeralignError, match="too few for 1 workers with 1 GPUs each"):
        Pool(Cluster("auto", gpus_per_worker=1), Doubling)


class Looking(Judge):
    """Calls an answer safe if it was given the picture."""

    kind, sees, together = "llama-guard-4", True, 3

    def judge_all(self, asked):
        return [Judgement("invalid" if case.picture is None else "safe") for case, _ in asked]


def test_a_judge_that_sees_is_given_the_pictures_on_a_cluster(tmp_path, monkeypatch):
    """The workers' judge was asked without them, and its record said that it had seen them."""
    Image.new("RGB", (8, 8)).save(tmp_path / "p.png")
    asked = Case("h", "how?", "harmful", read(tmp_path / "p.png", "here"))
    with create(tmp_path / "run", "model", {"x": 1}, {"layers": 3, "default": 3}) as run:
        run.add_cases([asked])
        run.add_answers([Row("h", 3, "a", 1, "stop")])
        monkeypatch.setitem(sys.modules, "ray", Ray([]))
        monkeypatch.setattr(cluster, "judges", lambda _: [SimpleNamespace(load=Looking)])
        pooled = PooledJudge("llama-guard-4", Cluster("auto"))
        judge(run, [pooled])
        assert (pooled.sees, pooled.together) == (True, 2 * 3 * 2)
        assert run.columns().verdicts["llama-guard-4"].tolist() == [VERDICTS.index("safe")]


@pytest.mark.parametrize(
    "told",
    [
        lambda rows: rows[1:],
        lambda rows: [*rows, rows[0]],
        lambda rows: [replace(rows[0], exit=9), *rows[1:]],
        lambda rows: [replace(rows[0], sample=1), *rows[1:]],
    ],
)
def test_rows_that_were_not_asked_for_are_not_stored(told, monkeypatch):
    """A scan without them ended as if it were whole, and rows of other exits were stored."""
    asked = queries(4)

    class Answering:
        def about(self):
            return {"node": "a"}

        def do(self, part):
            return told([Row(case.id, exit, "a", 1, "stop", sample) for case, exit, sample in part[0]])

    monkeypatch.setitem(sys.modules, "ray", Ray([]))
    workers = cluster._Workers(None, Pool(Cluster("auto"), Answering))
    assert workers.workers == 2
    with pytest.raises(LayeralignError, match="other rows than it was asked for"):
        list(workers.answers(asked, None))


def test_a_session_keeps_its_number_of_workers(tmp_path):
    with create(tmp_path / "run", "model", {"x": 1}, {"layers": 3, "default": 3}) as run:
        for workers in (1, 2):
            with _session(run, "answers", workers, total=1, done=0):
                pass
        assert [session["versions"].get(WORKERS) for session in run.sessions()] == [None, "2"]


def test_verdicts_are_not_shifted_to_other_answers(monkeypatch):
    """One worker gave a verdict less and another one more: as many as answers, each on its neighbour's."""

    class Shifting(Looking):
        def judge_all(self, asked):
            found = [Judgement("safe") for _ in asked]
            return found[1:] if asked[0][1] == "first" else [*found, Judgement("unsafe")]

    monkeypatch.setitem(sys.modules, "ray", Ray([]))
    monkeypatch.setattr(cluster, "judges", lambda _: [SimpleNamespace(load=Shifting)])
    pooled = PooledJudge("llama-guard-4", Cluster("auto", workers=1))
    case = Case("h", "how?", "harmful")
    with pytest.raises(LayeralignError, match="more or fewer verdicts than answers"):
        pooled.judge_all([(case, answer) for answer in ("first", "a", "b", "c")])


@pytest.mark.slow
def test_a_judge_on_a_server_needs_no_worker(tmp_path, monkeypatch):
    """A worker got the stored name of `llm:MODEL@URL`, which has no server, and the user the wrong advice."""
    with a_run(tmp_path / "run", 8):
        pass
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace())  # no worker is started
    with serving(OpenAI()) as server:
        layeralign.judge(tmp_path / "run", [f"llm:m@{server.url}"], rubric="yes-no", ray="auto")
    assert layeralign.read(tmp_path / "run").results.judges == ["llm:m#yes-no"]
