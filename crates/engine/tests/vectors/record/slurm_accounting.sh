#!/bin/bash
# Records how jobs end and what limits do, with accounting and cgroups. PIDS=DIRECTORY of slurmctld.pid; changes slurm.conf; as root.
export LC_ALL=C
OUT=$(realpath "$1"); mkdir -p "$OUT"; cd "$(mktemp -d)" || exit 1
rec() { # rec NAME COMMAND ...: writes the file
  local name=$1 out err status; shift; out=$(mktemp) err=$(mktemp)
  timeout 60 "$@" > "$out" 2> "$err" < /dev/null; status=$?
  { printf '$'; for word in "$@"; do case $word in *[\ \|\'\"\(\&]*|'') printf " '%s'" "$word";; *) printf ' %s' "$word";; esac; done; echo
    cat "$out"; [ -s "$out" ] && [ -n "$(tail -c1 "$out")" ] && echo
    echo '--- stderr'; cat "$err"; echo "--- exit $status"; } > "$OUT/$name.txt"
  rm -f "$out" "$err"
}
F='%i|%T|%r|%S|%j'
sq() { local n=$1; shift; rec $n squeue --noheader --states=all "--format=$F" "--jobs=$1"; }
job() { local name=$1; shift; printf '#!/bin/bash\n%s\n' "${BODY:-sleep 300}" > $name.sh; sbatch --job-name=parsl.x.block-$name "$@" $name.sh | awk '{print $4}'; }
printf '#!/bin/bash\nsleep 300\n' > ok.sh
SA='--format=JobID,State,ExitCode,Cluster,JobName'
sa() { local n=$1; shift; rec $n sacct -X --noheader --parsable2 $SA "--jobs=$1"; }
T=$(job timeout -t 1); FAIL=$(BODY='exit 3' job fail); DONE=$(BODY='exit 0' job done); KILLED=$(BODY='kill -9 $$' job killed); OOM=$(BODY='head -c 300000000 /dev/zero | tail' job oom --mem=20M)
RUN=$(job run -N1); HOLD=$(job held --hold); CQ=$(job cancelq --hold); scancel $CQ
sq endings $FAIL,$DONE,$KILLED,$OOM,$CQ,$RUN
sa endings-sacct $FAIL,$DONE,$KILLED,$OOM,$CQ,$RUN
rec scontrol-endings-oom scontrol --oneliner show job $OOM
# a limit of jobs
sed -i 's/^AccountingStorageType=.*/&\nAccountingStorageEnforce=associations,limits/' "$SLURM_CONF"
sacctmgr -i add account acct >/dev/null; sacctmgr -i add user root account=acct >/dev/null; sacctmgr -i modify user root set maxsubmitjobs=1 >/dev/null
kill $(cat $PIDS/slurmctld.pid); sleep 4; slurmctld -f "$SLURM_CONF"; sleep 4
rec limit-sbatch-1 sbatch --hold ok.sh
rec limit-sbatch-2 sbatch --hold ok.sh
rec limit-sbatch-account sbatch -A nosuch ok.sh
rec limit-sbatch-qos sbatch -q nosuch ok.sh
sacctmgr -i modify user root set maxsubmitjobs=-1 maxjobs=0 >/dev/null; sleep 2
L=$(job limited); sleep 3; sq limit-squeue $L
sleep 60
sq squeue-timeout $T; sa sacct-timeout $T; rec scontrol-show-timeout scontrol --oneliner show job $T
