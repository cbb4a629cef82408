module failback.invalid/referee

go 1.22

// Deliberately not the release that the lab uses: what the driver may rely on is what both answer.
require github.com/vmware/govmomi v0.38.0

require github.com/google/uuid v1.6.0 // indirect
