package measure

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Machine is where a measurement was made, and of what.
type Machine struct {
	Kernel string `json:"kernel"`
	CPU    string `json:"cpu"` // model
	CPUs   int    `json:"cpus"`
	Go     string `json:"go"`
	Commit string `json:"commit"` // of weir; "+" if there were changes
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
	return Machine{
		Kernel: unix.ByteSliceToString(uts.Release[:]),
		CPU:    cpuModel(),
		CPUs:   runtime.NumCPU(),
		Go:     runtime.Version(),
		Commit: commit(),
		Load:   strings.TrimSpace(string(load)),
	}, nil
}

// At says for a reader where and when something was measured.
func (m *Machine) At(measured time.Time) string {
	return fmt.Sprintf("%s, Linux %s, %d x %s, %s, weir %s",
		measured.Format(time.DateOnly), m.Kernel, m.CPUs, m.CPU, m.Go, shortCommit(m.Commit))
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

// commit returns what the program was built from, or, where that is not in it
// (go run, go test), what the working directory is at.
func commit() string {
	settings := make(map[string]string)
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			settings[s.Key] = s.Value
		}
	}
	revision, dirty := settings["vcs.revision"], settings["vcs.modified"] == "true"
	if revision == "" {
		out, err := exec.Command("git", "rev-parse", "HEAD").Output()
		if err != nil {
			return "unknown"
		}
		revision = strings.TrimSpace(string(out))
		status, err := exec.Command("git", "status", "--porcelain").Output()
		dirty = err != nil || len(status) > 0
	}
	if dirty {
		revision += "+"
	}
	return revision
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
