# shellcheck shell=sh
# Sourced by tests that start processes with mpirun: run N COMMAND...
#
# More processes than there are cores are meant, root is what many a container has, and a container
# may forbid processes to read each other's memory. Variables tell Open MPI 4 and 5, and others do
# not mind.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe
export OMPI_MCA_hwloc_base_binding_policy=none PRTE_MCA_hwloc_default_binding_policy=none
export OMPI_MCA_btl_vader_single_copy_mechanism=none OMPI_MCA_btl=self,vader
# What MPI itself does not give back is no leak of ours.
export ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0"

run() {
    count=$1
    shift
    timeout 120 "${mpirun:?}" -n "$count" "$@" </dev/null
}
