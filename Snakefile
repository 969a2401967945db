# The build as a graph: model -> chapter x edition -> book. `snakemake --cores 2` builds what
# `make book` builds; `--config edition=gpt2 size=book` chooses another edition and size.
#
# A chapter runs again when the content of its static import closure changes (the digest among its
# params), never because of a modification time: hence no input of a chapter is a source file.
import sys
from pathlib import Path

from th_utils.build import graph, workflow as build_workflow
from th_utils.build.layout import DEFAULT_EDITION, DEFAULT_SIZE, Layout

BOOK = Layout(
    Path(workflow.basedir), config.get("edition", DEFAULT_EDITION), config.get("size", DEFAULT_SIZE)
)
CHAPTERS = BOOK.chapters()
# TH_PARENT lets a job notice that its parent died before it could ask to die with it.
RUN = f"TH_PARENT=$PPID exec {sys.executable} -m th_utils.build"


onstart:
    build_workflow.hold_lock(BOOK.root)


wildcard_constraints:
    chapter="|".join(CHAPTERS) or "none",


rule book:
    input:
        notebooks=[str(BOOK.executed(chapter)) for chapter in CHAPTERS],
    output:
        str(BOOK.front_page),
    params:
        digest=graph.book_digest(BOOK),
        run=RUN,
        edition=BOOK.edition,
        size=BOOK.size,
    resources:
        mem_mb=600,
    shell:
        "{params.run} render --edition {params.edition:q} --size {params.size}"


rule chapters:
    input:
        rules.book.input,


rule chapter:
    input:
        lambda wildcards: graph.model_marker(BOOK, wildcards.chapter),
    output:
        str(BOOK.notebooks / "{chapter}.ipynb"),
    params:
        digest=lambda wildcards: graph.chapter_digest(BOOK, wildcards.chapter),
        run=RUN,
        edition=BOOK.edition,
        size=BOOK.size,
    # Loading the default model peaks at 2.6 GB; given `--resources mem_mb=...` Snakemake decides
    # from this how many chapters run at once.
    resources:
        mem_mb=2750,
    shell:
        "{params.run}.run {wildcards.chapter} --edition {params.edition:q} --size {params.size}"


# Fetching and converting the model once, before the chapters ask for it side by side. The chapters
# depend on its having run, not on its time: they check the model themselves.
rule model:
    output:
        touch(str(graph.marker(BOOK))),
    params:
        run=RUN,
        edition=BOOK.edition,
    resources:
        mem_mb=2750,
    shell:
        "{params.run} model --edition {params.edition:q}"
