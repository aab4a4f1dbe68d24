package measure

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// Machine is where a measurement was made, and by what.
type Machine struct {
	Kernel string `json:"kernel"`
	CPU    string `json:"cpu"` // model
	CPUs   int    `json:"cpus"`
	Go     string `json:"go"`
	Commit string `json:"commit"` // that the measuring program was built from; "+" if there were changes
	Load   string `json:"load"`   // /proc/loadavg as the measurement began
}

// ThisMachine returns the machine that this runs on.
func ThisMachine() (Machine, error) {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return Machine{}, fmt.Errorf("uname: %w", err)
	}
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return Machine{}, fmt.Errorf("read load: %w", err)
	}
	var noted []debug.BuildSetting
	if info, ok := debug.ReadBuildInfo(); ok {
		noted = info.Settings
	}
	return Machine{
		Kernel: unix.ByteSliceToString(uts.Release[:]),
		CPU:    cpuModel(),
		CPUs:   runtime.NumCPU(),
		Go:     runtime.Version(),
		Commit: builtFrom(commit, noted),
		Load:   strings.TrimSpace(string(load)),
	}, nil
}

// cpuModel returns what the kernel calls the CPU, or the architecture where it
// has no name for it.
func cpuModel() string {
	file, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), ":")
		if strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// commit is set by the linker (see the Makefile): what the program was built from,
// with "+" if there were changes.
var commit string

// builtFrom returns what the program was built from: what the linker was told, or
// else what go build has noted. Where the program happens to run says nothing of
// it, so it is unknown if neither is there (go run, go test).
func builtFrom(stamp string, noted []debug.BuildSetting) string {
	if stamp != "" {
		return stamp
	}
	revision, changes := "unknown", ""
	for _, s := range noted {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			changes = "+"
		}
	}
	return revision + changes
}

// VersionOf returns what a program answers to --version: which weir it is that was
// measured, where that is a binary of its own.
func VersionOf(ctx context.Context, program string) (string, error) {
	out, err := exec.CommandContext(ctx, program, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("ask %s for its version: %w", program, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// shortCommit is a commit for a reader, who also wants to know of changes.
func shortCommit(commit string) string {
	hash, changed := strings.CutSuffix(commit, "+")
	hash = hash[:min(len(hash), 12)]
	if changed {
		return hash + " with changes"
	}
	return hash
}
