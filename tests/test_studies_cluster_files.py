"""The example cluster files: they parse, match their schemas, and require a token."""

import json
import re
import subprocess
from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
FILES = ROOT / "studies" / "cluster"
PINNED = {
    line.partition("==")[0]: line.partition("==")[2].split()[0]
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if "==" in line
}
RAY = PINNED["ray"]


def read(text):
    return YAML(typ="safe", pure=True).load(text)


def on_premise():
    return read((FILES / "ray-cluster.yaml").read_text())


def on_aws():
    text = (FILES / "ray-cluster.yaml").read_text()
    kept = re.sub(r"^provider:\n(  .*\n)+auth:\n(  .*\n)+", "", text, flags=re.M)
    return read(re.sub("^#aws ", "", kept, flags=re.M))


@pytest.mark.parametrize("made", [on_premise, on_aws])
def test_ray_up_accepts_the_file(made):
    import ray.autoscaler

    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    config = made()
    jsonschema.validate(config, schema)
    assert config["provider"]["type"] == ("local" if made is on_premise else "aws")
    assert "~/.ray/auth_token" in config["file_mounts"]
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        assert "RAY_AUTH_MODE=token" in commands[-1]
    assert "--num-cpus=0" in config["head_start_ray_commands"][-1]  # the head only drives


def test_the_aws_cluster_grows_for_trials_with_a_gpu():
    nodes = on_aws()["available_node_types"]
    assert nodes["gpu"]["resources"] == {"CPU": 8, "GPU": 1} and nodes["gpu"]["min_workers"] == 0
    assert nodes["head"]["resources"] == {"CPU": 0} and on_aws()["head_node_type"] == "head"


def test_kuberay_accepts_the_job():
    job = read((FILES / "rayjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == RAY and cluster["authOptions"] == {"mode": "token"}
    assert "voxnas run /study/study.yaml --executor ray --address auto" in job["spec"]["entrypoint"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        spec = group["template"]["spec"]
        (container,) = spec["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        mounted = {each["name"] for each in container["volumeMounts"]}
        assert mounted == {each["name"] for each in spec["volumes"]} and "shared" in mounted
    (worker,) = cluster["workerGroupSpecs"]
    assert worker["minReplicas"] <= worker["replicas"] <= worker["maxReplicas"]
    assert worker["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_slurm_accepts_the_script():
    file = FILES / "slurm.sh"
    text = file.read_text()
    assert subprocess.run(["bash", "-n", str(file)], capture_output=True).returncode == 0
    asked = dict(re.findall(r"^#SBATCH --([a-z-]+)=(\S+)", text, flags=re.M))
    assert {"nodes", "ntasks-per-node", "cpus-per-task", "gpus-per-task", "mem", "time"} <= set(asked)
    assert asked["ntasks-per-node"] == "1"  # one raylet a machine
    assert "export RAY_AUTH_MODE=token" in text and "umask 077" in text
    assert text.index("ray start --head") < text.index("ray start --address") < text.index("voxnas run")


@pytest.mark.parametrize("file", ["ray-cluster.yaml", "rayjob.yaml", "slurm.sh"])
def test_versions_are_the_tested_ones(file):
    text = (FILES / file).read_text()
    assert set(re.findall(r"ray(?:\[default\]==|:)(\d+\.\d+\.\d+)", text)) == {RAY}


@pytest.mark.parametrize("verb", ["run", "submit"])
def test_the_commands_in_the_files_use_existing_options(verb):
    from typer.testing import CliRunner

    from search.cli.app import app

    output = CliRunner().invoke(app, [verb, "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
    text = "".join(file.read_text() for file in FILES.iterdir())
    for command in re.findall(rf"voxnas {verb} .*(?:\\\n.*)*", text):
        for option in re.findall(r"--[a-z]+", command):
            assert option in output, option
