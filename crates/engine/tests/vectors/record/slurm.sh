#!/bin/bash
# Records a Slurm of four idle nodes n1 to n4. PIDS=DIRECTORY of slurmctld.pid; ACC=1 with accounting, CG=1 with cgroups; as root.
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
F='%i|%T|%r|%S|%j' SA=--format=JobID,State,ExitCode,Cluster,JobName
sq() { local n=$1; shift; rec $n squeue --noheader --states=all "--format=$F" "--jobs=$1"; }
job() { local name=$1; shift; printf '#!/bin/bash\n%s\n' "${BODY:-sleep 300}" > $name.sh; sbatch --job-name=parsl.x.block-$name "$@" $name.sh | awk '{print $4}'; }
printf '#!/bin/bash\nsleep 300\n' > ok.sh
rec version squeue --version
rec sbatch-ok sbatch ok.sh; scancel -u root; sleep 2
FAIL=$(BODY='exit 3' job fail); DONE=$(BODY='exit 0' job done); KILLED=$(BODY='kill -9 $$' job killed)
TIMEOUT=$(job timeout -t 1)
[ "$CG" = 1 ] && OOM=$(BODY='python3 -c "x=bytearray(300000000)"; head -c 300000000 /dev/zero | tail; ' job oom --mem=20M)
sleep 3
RUN=$(job run -N1 --exclusive); RUN2=$(job run2 -N2 --exclusive); sleep 2
HOLD=$(job held --hold); AHOLD=$(job adminheld --hold); 
BEGIN=$(job begin --begin=now+2hours); DEP=$(job dep --dependency=afterok:$RUN); DEPN=$(job depnever --dependency=afterok:$FAIL)
RES=$(job resources -N4 -t 10 --exclusive); PRIO=$(job priority -N4 -t 10 --exclusive)
REQ=$(job feature -w n1 --exclusive -t 10)
CANCELQ=$(job cancelq --hold); scancel $CANCELQ
scontrol hold $AHOLD
sleep 4
sq squeue-running $RUN
sq squeue-many $RUN,$RUN2,$HOLD,$AHOLD,$BEGIN,$DEP,$DEPN,$RES,$PRIO,$REQ,$FAIL,$DONE,$KILLED,$CANCELQ,$TIMEOUT${OOM:+,$OOM}
sq squeue-unknown-among-known $RUN,999999,$HOLD
sq squeue-unknown-alone 999999
sq squeue-unknown-two 999998,999999
sq squeue-malformed abc
rec scontrol-show-failed scontrol --oneliner show job $FAIL
rec scontrol-show-killed scontrol --oneliner show job $KILLED
rec scontrol-show-unknown scontrol --oneliner show job 999999
rec sacct-many sacct -X --noheader --parsable2 $SA --jobs=$RUN,$HOLD,$FAIL,$DONE,$KILLED,$CANCELQ${OOM:+,$OOM}
rec sacct-unknown sacct -X --noheader --parsable2 $SA --jobs=999999
scancel $CANCELQ 
rec scancel-ended scancel $DONE
rec scancel-unknown scancel 999999
rec scancel-mixed scancel 999999 $BEGIN $DONE
rec scancel-malformed scancel abc
[ -n "$OTHER" ] && rec scancel-not-owner setpriv --reuid nobody --clear-groups scancel $HOLD
rec scancel-ok scancel $DEP
# suspended
scontrol suspend $RUN; sleep 1; sq squeue-suspended $RUN; scontrol resume $RUN; sleep 1
# requeued
scontrol requeue $RUN2; sleep 1; sq squeue-requeued $RUN2; sleep 3; sq squeue-requeued-later $RUN2
scontrol requeuehold State=SpecialExit $RUN; sleep 1; sq squeue-special-exit $RUN; sleep 3; sq squeue-special-exit-later $RUN
rec scontrol-show-special scontrol --oneliner show job $RUN
# node failure
scancel -u root; sleep 4
NF=$(job nodefail -N1 --no-requeue --exclusive); NFR=$(job nodefailrequeue -N1 --exclusive); sleep 2
N=$(squeue -h -j $NF -o %N); N2=$(squeue -h -j $NFR -o %N); scontrol update nodename=$N,$N2 state=down reason=test; sleep 2
sq squeue-node-failed $NF,$NFR
[ "$ACC" = 1 ] && sleep 2 && rec sacct-node-failed sacct -X --noheader --parsable2 $SA --jobs=$NF,$NFR
rec scontrol-show-node-failed scontrol --oneliner show job $NF
scontrol update nodename=$N,$N2 state=resume
# completing
C=$(BODY='trap "" TERM; sleep 300 & while :; do sleep 1; done' job completing -N1); sleep 3; rec scancel-running scancel $C; sq squeue-completing $C; sleep 6; sq squeue-cancelled $C
rec scontrol-show-cancelled scontrol --oneliner show job $C
[ "$ACC" = 1 ] && rec sacct-cancelled sacct -X --noheader --parsable2 $SA --jobs=$C
# partition down
scontrol update partitionname=debug state=down; P=$(job down); sleep 2; sq squeue-partition-down $P; scontrol update partitionname=debug state=inactive; rec sbatch-partition-inactive sbatch ok.sh; scontrol update partitionname=debug state=drain; rec sbatch-partition-drain sbatch ok.sh; scontrol update partitionname=debug state=up; scancel -u root
# drained nodes
scontrol update nodename=n[1-4] state=drain reason=x; D=$(job drained -N1); sleep 3; sq squeue-nodes-drained $D; scontrol update nodename=n[1-4] state=resume
# never
T=$(job toolong -t 100:00:00); sleep 2; sq squeue-time-limit $T
# reservation
scontrol create reservation reservationname=rr starttime=now+60minutes duration=60 nodes=n1 users=root flags=ignore_jobs >/dev/null; RV=$(job reservation --reservation=rr -t 10); sleep 2; sq squeue-reservation $RV
LIC=$(sbatch -L nolic:1 ok.sh 2>&1)
rec sbatch-licenses sbatch -L nolic:1 ok.sh
scancel -u root; scontrol delete reservation=rr
# arrays and hetjobs
A=$(job array --array=1-3 --hold); sq squeue-array $A; H=$(sbatch --hold -N1 : -N1 ok.sh | awk '{print $4}'); sq squeue-het $H
scancel -u root
# refused
rec sbatch-invalid-partition sbatch -p nosuch ok.sh
rec sbatch-invalid-account sbatch -A nosuch ok.sh
rec sbatch-invalid-qos sbatch -q nosuch ok.sh
rec sbatch-too-many-nodes sbatch -N 99 ok.sh
rec sbatch-too-many-cpus sbatch --cpus-per-task=99 ok.sh
rec sbatch-too-much-memory sbatch --mem=9999G ok.sh
rec sbatch-invalid-constraint sbatch -C nosuch ok.sh
rec sbatch-invalid-gres sbatch --gres=gpu:9 ok.sh
rec sbatch-invalid-time sbatch -t abc ok.sh
rec sbatch-bad-option sbatch --nosuch ok.sh
rec sbatch-no-script sbatch /nonexistent/x.sh
printf 'no shebang\n' > bad.sh; rec sbatch-no-shebang sbatch bad.sh
printf '#!/bin/bash\r\nsleep 1\r\n' > crlf.sh; rec sbatch-crlf sbatch crlf.sh
printf '' > empty.sh; rec sbatch-empty sbatch empty.sh
rec sbatch-unknown-cluster sbatch -M nosuch ok.sh
rec squeue-unknown-cluster squeue -M nosuch --noheader --format=$F --jobs=1
rec sbatch-quiet sbatch -Q --hold ok.sh
rec sbatch-parsable sbatch --parsable --hold ok.sh
rec sbatch-array sbatch --array=1-2 --hold ok.sh
scancel -u root
# limit of jobs
scontrol reconfigure
sq squeue-timeout $TIMEOUT
rec scontrol-show-timeout scontrol --oneliner show job $TIMEOUT
[ "$ACC" = 1 ] && rec sacct-timeout sacct -X --noheader --parsable2 $SA --jobs=$TIMEOUT
if [ -n "$OOM" ]; then sq squeue-oom $OOM; rec scontrol-show-oom scontrol --oneliner show job $OOM; rec sacct-oom sacct -X --noheader --parsable2 $SA --jobs=$OOM; fi
# the controller is away
KEEP=$(job keep --hold); sleep 6
kill $(cat $PIDS/slurmctld.pid); sleep 3
rec down-squeue squeue --noheader --states=all "--format=$F" --jobs=$KEEP
rec down-sbatch sbatch ok.sh
rec down-scancel scancel $KEEP
rec down-scontrol scontrol --oneliner show job $KEEP
rec down-sacct sacct -X --noheader --parsable2 $SA --jobs=$KEEP
slurmctld -f "$SLURM_CONF"; sleep 3; scancel -u root
