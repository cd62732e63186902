"""Jobs on a SLURM cluster: the sbatch files, the program that completes, checks and chains them, the life of a job.

site        the cluster's settings (site.env)            request     what is asked for, checked before anything is queued
render      sbatch files from templates                  submit      a chain of jobs
life        start, end, requeue or not                   node_check  is this node fit?
sbatch_options   what a site may ask of sbatch
records     what RUN.slurm/ holds                        status      where each stage of a run is
"""
