# Lists of files: what a figure, or the whole study, consists of.
import time

START = time.time()


def files_of(*chosen):
    """Every file that the jobs of the chosen rules make in the study, with the records."""

    def outputs(wildcards):
        found = {}
        for name, of_job in jobs(RESOLVED):
            if name in chosen:
                values = dict(dataset=STUDY.datasets, seed=STUDY.seeds) | of_job
                found.update(dict.fromkeys(expand(getattr(rules, name).output, **values)))
        return list(found)

    return outputs


figure_outputs = files_of(*FIGURES, "heat_map", "distortion")


def table_outputs(table):
    """Every file of a table, and of what is concluded from it, with the records."""
    makers = [rules.table, *([getattr(rules, CONCLUSIONS[table])] if table in CONCLUSIONS and table in tables(RESOLVED) else [])]
    return [path for maker in makers for path in expand(maker.output, table=table)]


def pictures(suffix):
    """Every picture, as files with this suffix."""
    return lambda wildcards: [path for path in figure_outputs(wildcards) if path.endswith(suffix)]


def everything(wildcards):
    """Every file of the study, with the records: each is asked for by name, so that one which was deleted is made again."""
    left_out = {"manifest"} if RESOLVED["figures"]["models"] and shutil.which("pdflatex") else {"manifest", "paper"}
    return files_of(*RULES.keys() - left_out)(wildcards)


def published(wildcards):
    """The tables, figures and comparisons of a study, without their records."""
    found = files_of("table", *CONCLUSIONS.values(), *FIGURES, "heat_map", "distortion", "beside_paper", "claims", "ambiguity")(wildcards)
    return [path for path in found if not path.endswith(".json")]


def expect_times():
    """Tell the console how long each job of a local run should take, by the constants of ``pqag.study.resources``. On a cluster the queue
    decides, and no estimate is made."""
    cores = workflow.resource_settings.cores
    for job in workflow.dag.needrun_jobs() if cores else ():
        if job.rule.name not in RULES.keys() | READERS.keys():  # table1, say, which only asks for files
            continue
        seconds = START_SECONDS + work(job.rule.name, job.wildcards_dict, WORKLOAD, bool(GPUS)).seconds
        EXPECTED[job.jobid] = seconds * min(job.threads, cores) / cores


def show_results():
    """Print the tables that this run made, and where they and the gallery lie, when it ends well."""
    folder = Path(paths.results(RESOLVED))

    def made(pattern):
        return [path for path in sorted(folder.glob(pattern)) if path.stat().st_mtime >= START]

    for table in made("tables/*.txt"):
        print(table.read_text())
    if made("tables/*.txt"):
        print(f"Files: {folder}/tables/")
    for page in made("gallery.html"):
        print(f"Gallery: {page}")


onstart:
    expect_times()
