package router

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"weir/lab/netlab"
)

// helperVar makes the test program play a lab that dies without cleaning up.
const helperVar = "ROUTER_TEST_HELPER"

func TestMain(m *testing.M) {
	if os.Getenv(helperVar) != "" {
		if err := abandon(); err != nil {
			fmt.Println("helper:", err)
		}
		select {}
	}
	os.Exit(m.Run())
}

// abandon starts daemons, says which and where their files are, and leaves them.
func abandon() error {
	lab, err := netlab.New("abandoned")
	if err != nil {
		return err
	}
	h, err := lab.Host("h")
	if err != nil {
		return err
	}
	f, err := StartFRR(context.Background(), h, FRRConfig{Text: "router bgp 65000\n"})
	if err != nil {
		return err
	}
	b, err := StartBIRD(context.Background(), h, "router id 10.0.0.1;\nprotocol device {}\n")
	if err != nil {
		return err
	}
	fmt.Println(f.zebra.PID(), f.bgpd.PID(), b.bird.PID(), f.dir, b.dir)
	return nil
}

// TestEndWithLab kills the program that a lab belongs to: its daemons end.
func TestEndWithLab(t *testing.T) {
	newLab(t, "end") // or skip
	helper := exec.Command(os.Args[0])
	helper.Env = append(os.Environ(), helperVar+"=1")
	out, err := helper.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := helper.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	var pids [3]int
	var dirs [2]string
	if err == nil {
		_, err = fmt.Sscan(line, &pids[0], &pids[1], &pids[2], &dirs[0], &dirs[1])
	}
	for _, dir := range dirs {
		if strings.HasPrefix(dir, os.TempDir()) {
			t.Cleanup(func() { _ = os.RemoveAll(dir) })
		}
	}
	_ = helper.Process.Kill()
	_ = helper.Wait()
	if err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	for _, pid := range pids {
		await(t, func() error {
			if errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
				return nil
			}
			return fmt.Errorf("process %d is still there", pid)
		})
	}
	if _, err := netlab.Sweep(); err != nil {
		t.Error(err)
	}
}
