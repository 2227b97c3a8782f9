"""``edgeq devices``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeq.cli._options import ForceOption, ThreadsOption
from edgeq.cli._output import JsonFlag, print_facts, print_json, print_table, progress_bar, warn

if TYPE_CHECKING:
    from edgeq.devices.profile import Profile


def register(app: typer.Typer) -> None:
    devices = typer.Typer(help="Know devices: those with a profile, and this machine.", no_args_is_help=True)
    devices.command("list")(list_)
    devices.command("show")(show)
    devices.command("detect")(detect)
    devices.command("add")(add)
    app.add_typer(devices, name="devices")


def list_(as_json: JsonFlag = False) -> None:
    """List the devices that have a profile, your own among them.

    **Example**

    `edgeq devices list --json`
    """
    from edgeq.devices.library import BUILT_IN, all_profiles, user_folder

    profiles = all_profiles()
    if as_json:
        print_json([_record(profile) for profile in profiles])
        return
    rows = [
        (
            profile.id,
            profile.name,
            profile.kind,
            f"{profile.memory.gb:g}",
            profile.cores or "-",
            _measured(profile),
            "" if profile.path and profile.path.parent == BUILT_IN else "yours",
        )
        for profile in profiles
    ]
    print_table(("id", "name", "kind", "GB", "cores", "measured", ""), rows, right=(3, 4))
    print_facts([("yours are in", str(user_folder()))])


def show(
    name: Annotated[str, typer.Argument(help="A device's id, name or alias; `this` is this machine.")],
    profile: Annotated[Path | None, typer.Option(help="A profile of your own, instead of NAME.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show a device's profile, the source and date of every number, and what is predicted with.

    **Example**

    `edgeq devices show raspberry-pi-5`
    """
    found = device(name, profile)
    if as_json:
        print_json(_record(found) | {"machine": _machine(found)})
        return
    _print(found)


def detect(
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Measure bandwidth, peaks and each engine's rates by block type."),
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the profile to this TOML file.")
    ] = None,
    save: Annotated[
        bool, typer.Option("--save", help="Keep the profile in your folder, for `plan --target this`.")
    ] = False,
    threads: ThreadsOption = 0,
    force: ForceOption = False,
    as_json: JsonFlag = False,
) -> None:
    """Find out what this machine is: cores, instruction sets, caches, memory and its limits, GPUs.

    **Example**

    `edgeq devices detect --measure -o my-machine.toml`
    """
    from edgeq.devices.host import THIS, host_facts, onnxruntime_providers, profile_of
    from edgeq.devices.library import user_folder
    from edgeq.devices.to_toml import profile_toml
    from edgeq.formats.atomic import check_output, write_text

    outputs = [path for path in (out, user_folder() / f"{THIS}.toml" if save else None) if path]
    if save:
        user_folder().mkdir(parents=True, exist_ok=True)
    for path in outputs:
        check_output(path, force=force)
    facts = host_facts()
    found, figures = profile_of(facts), None
    if measure:
        from edgeq.measure_device import measured_profile

        warn_if_busy()
        with progress_bar() as progress:
            found, figures = measured_profile(facts, threads, progress)
    for path in outputs:
        write_text(path, profile_toml(found), force=force)
    providers = onnxruntime_providers()
    if as_json:
        extra = {"caches": dict(facts.caches), "onnxruntime_providers": list(providers), "measured": figures}
        print_json(_record(found) | extra)
        return
    _print(found)
    caches = ", ".join(f"{level} {size >> 10:,} KB" for level, size in facts.caches.items())
    cuda = "with CUDA" if "CUDAExecutionProvider" in providers else "without CUDA"
    print_facts([("caches", caches or "unknown"), ("ONNX Runtime", cuda if providers else "not installed")])
    if figures is not None:
        peaks = f"{figures['int8_gops']:.0f} int8, {figures['float_gops']:.0f} float32"
        print_facts([("peak GOPS", peaks)])
    print_facts([("written", str(path)) for path in outputs] or [("written", "nothing; -o FILE or --save")])


def add(
    profile: Annotated[
        Path, typer.Argument(help="A profile: of `devices detect -o`, of a benchmark's zip, or your own.")
    ],
    name: Annotated[
        str | None, typer.Option("--id", help="What --target calls it; without it the file's name.")
    ] = None,
    force: ForceOption = False,
    as_json: JsonFlag = False,
) -> None:
    """Keep a profile in your folder, so that every `--target` knows the device.

    **Example**

    `edgeq devices add device.toml --id kitchen-pi`
    """
    from edgeq.devices.library import add_profile

    found = add_profile(profile, name or profile.stem, force)
    if as_json:
        print_json(_record(found))
        return
    print_facts([("written", str(found.path)), ("then", f"edgeq plan MODEL --target {found.id}")])


def warn_if_busy() -> None:
    """Tell that what is measured now is less than the machine can do."""
    from edgeq.devices.cpu import usable_cores
    from edgeq.devices.system import is_busy, load_average

    load, cores = load_average(), usable_cores()
    if load is not None and is_busy(load, cores):
        warn(
            f"this machine is busy (load average {load:.1f}, {cores} cores): what is measured now is too low"
        )


def device(target: str, path: Path | None) -> Profile:
    """The profile in a file where one is given, of this machine, or of the device of that name."""
    if path is not None:
        from edgeq.devices.profile import read_profile

        return read_profile(path)
    if target == "this":
        from edgeq.devices.host import this_machine

        return this_machine()
    from edgeq.devices.library import find

    return find(target)


def _measured(profile: Profile) -> str:
    seen = profile.memory.read_gbs is not None and profile.memory.read_is == "measured"
    parts = ["bandwidth"] if seen else []
    return ", ".join([*parts, *(f"{rates.engine} rates" for rates in profile.rates)])


def _record(profile: Profile) -> dict[str, Any]:
    from dataclasses import asdict

    record = asdict(profile)
    record["path"] = str(profile.path) if profile.path else None
    return record


def _machine(profile: Profile) -> list[dict[str, Any]]:
    """The rates that predictions use, of the CPU and each GPU."""
    from dataclasses import asdict

    from edgeq.devices.machine import cpu_of, gpu_of

    machines = [cpu_of(profile)] if profile.clusters else []
    return [asdict(machine) for machine in (*machines, *(gpu_of(profile, gpu) for gpu in profile.gpus))]


def _print(profile: Profile) -> None:
    memory = profile.memory
    rows = [("device", f"{profile.name} ({profile.id}, {profile.kind})"), ("apps", ", ".join(profile.apps))]
    rows += [
        ("cores", f"{c.count} x {c.name}, {c.ghz:g} GHz, class {c.core_class} [{c.source}]")
        for c in profile.clusters
    ]
    if profile.clusters:
        rows += [("threads", str(profile.threads)), ("instructions", ", ".join(profile.isa) or "none known")]
    peak = "unknown" if memory.peak_gbs is None else f"{memory.peak_gbs:g} GB/s at the peak"
    sold = f" (sold with {', '.join(f'{size:g}' for size in memory.options)})" if memory.options else ""
    rows.append(("memory", f"{memory.gb:g} GB{sold}, {peak} [{memory.source}]"))
    if memory.read_gbs is not None:
        rows.append(("read", f"{memory.read_gbs:g} GB/s {memory.read_is} [{memory.read_source}]"))
    rows += [
        ("GPU", f"{g.name}, {g.api}, {g.gb:g} GB, {g.gbs:g} GB/s, {g.teraflops:g} TFLOPS [{g.source}]")
        for g in profile.gpus
    ]
    rows += [("limit", f"{x.app}: {x.gb:.2f} GB under {x.system} [{x.source}]") for x in profile.limits]
    for rates in profile.rates:
        shown = ", ".join(f"{name} {rate:g}" for name, rate in rates.decode.items())
        rows.append(
            ("rates", f"{rates.engine}, {rates.threads} threads, 1e9 weights/s: {shown} [{rates.source}]")
        )
    rows += [("note", note) for note in profile.notes]
    for machine in _machine(profile):
        decode = machine["decode"]
        shown = f"reads {machine['read_gbs']:.1f} GB/s"
        if machine["unit"] == "CPU":
            shown += f", {decode['Q4_K']:.1f} (Q4_K) and {decode['Q8_0']:.1f} (Q8_0) 1e9 weights/s"
        rows.append(("predicted with", f"{machine['unit']}: {shown}"))
    rows += [(f"[{name}]", f"{source.what} ({source.date})") for name, source in profile.sources.items()]
    print_facts(rows)
