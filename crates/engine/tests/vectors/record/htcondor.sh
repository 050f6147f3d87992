#!/bin/bash
# Records a personal HTCondor pool of 8 cores, as an ordinary user. STOP=COMMAND that ends it.
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
A=ClusterId,ProcId,JobStatus,HoldReason,HoldReasonCode,ExitCode,ExitBySignal,ExitSignal,RemoveReason,JobBatchName
sub() { local name=$1 body=$2; shift 2; printf '#!/bin/bash\n%s\n' "$body" > $name.script
 { printf 'universe = vanilla\nshould_transfer_files = YES\nwhen_to_transfer_output = ON_EXIT_OR_EVICT\nTransfer_Executable = false\ntransfer_input_files = %s/%s.script\nmachine_count = 1\noutput = %s.stdout\nerror = %s.stderr\nlog = %s.log\nexecutable = /bin/bash\narguments = %s.script\nrequirements =\n+projectname =\nleave_in_queue = TRUE\nbatch_name = parsl.x.block-%s\nenvironment = "JOBNAME='"'"'x'"'"'"\n' $PWD $name $PWD/$name $PWD/$name $PWD/$name $name $name; printf '%s\n' "$@"; printf '\nqueue\n'; } > $name.submit
 condor_submit $name.submit | sed -n 's/.*cluster \([0-9]*\)\./\1.0/p'; }
rec condor_version condor_version
rec condor_q-none condor_q -json -attributes $A
sub first 'sleep 1' request_disk=10M > first.id
rec condor_submit-ok condor_submit first.submit
R=$(sub run 'sleep 300' request_disk=10M); F=$(sub fail 'exit 3' request_disk=10M); K=$(sub killed 'kill -9 $$' request_disk=10M); D=$(sub done 'exit 0' request_disk=10M)
I=$(sub idle 'sleep 300' 'request_memory=999999'); H=$(sub held 'sleep 300' 'hold = true'); BH=$(sub badinput 'sleep 1' request_disk=10M 'transfer_input_files=/nonexistent/file'); X=$(sub removed 'sleep 300' request_disk=10M)
sleep 14
condor_hold $X >/dev/null; sleep 1
rec condor_q-many condor_q $R $F $K $D $I $H $BH $X -json -attributes $A
rec condor_q-unknown-among condor_q $R 9999.0 $F -json -attributes $A
rec condor_q-unknown condor_q 9999.0 -json -attributes $A
rec condor_q-find condor_q -constraint 'JobBatchName == "parsl.x.block-run"' -json -attributes $A
rec condor_q-find-none condor_q -constraint 'JobBatchName == "parsl.x.block-none"' -json -attributes $A
rec condor_rm-ok condor_rm $R $I
sleep 3
rec condor_q-removed condor_q $R $I -json -attributes $A
rec condor_rm-forcex condor_rm -forcex $R $I
sleep 1
rec condor_rm-unknown condor_rm 9999.0
rec condor_rm-mixed condor_rm 9999.0 $X
rec condor_rm-completed condor_rm $D
sleep 2
rec condor_q-completed-removed condor_q $D -json -attributes $A
rec condor_rm-forcex-unknown condor_rm -forcex 9999.0
printf 'universe = vanilla\nexecutable = /bin/bash\nrequirements = (((\nqueue\n' > bad1.submit; rec condor_submit-bad-requirements condor_submit bad1.submit
printf 'universe = vanilla\nqueue\n' > bad2.submit; rec condor_submit-no-executable condor_submit bad2.submit
printf 'executable = /bin/bash\n' > bad3.submit; rec condor_submit-no-queue condor_submit bad3.submit
printf 'executable = /nonexistent/x\nqueue\n' > bad4.submit; rec condor_submit-missing-executable condor_submit bad4.submit
printf 'executable = /bin/bash\nlog = /nonexistent/dir/x.log\nqueue\n' > bad5.submit; rec condor_submit-bad-log condor_submit bad5.submit
rec condor_submit-no-file condor_submit /nonexistent.submit
printf 'executable = /bin/bash\nqueue 3\n' > many.submit; rec condor_submit-three condor_submit many.submit
condor_rm -all >/dev/null; condor_rm -forcex -all > /dev/null
$STOP; sleep 4
rec down-condor_q condor_q 1.0 -json -attributes $A
rec down-condor_submit condor_submit first.submit
rec down-condor_rm condor_rm 1.0
