# The collection on a cluster: sweeps are generated in shards, then every notebook runs, then the site is built.
#   snakemake --jobs 8 --config profile=sd21 shards=8 --executor slurm      (or on one machine: snakemake --cores 2)
PROFILE, SHARDS = config.get("profile", "mini"), int(config.get("shards", 2))
NOTEBOOKS = config.get("notebooks", "").split() or sorted(glob_wildcards("notebooks/{name,[^/]+}.ipynb").name)
RUN, DONE = f"{config.get('python', '.venv/bin/python')} -m entropy_lib", f"build/snakemake/{PROFILE}"
# these generate one plan by the hundred
SWEEPS = {"06_metric_tables", "08_user_study", "09_layout_metrics", "10_dose_response", "11_rival_explanations"}

rule site:
    input: expand(f"{DONE}/{{name}}.run", name=NOTEBOOKS)
    shell: f"{RUN} site"

rule shard:
    output: touch(f"{DONE}/{{name}}.{{index,[0-9]+}}")
    shell: f"{RUN} sweep sample --notebook {{wildcards.name}} --profile {PROFILE} --shard {{wildcards.index}}/{SHARDS}"

rule notebook:
    input: lambda wildcards: [f"{DONE}/{wildcards.name}.{index}" for index in range(SHARDS) if wildcards.name in SWEEPS]
    output: touch(f"{DONE}/{{name}}.run")
    shell: f"{RUN} run {{wildcards.name}} --profile {PROFILE} --no-site"
