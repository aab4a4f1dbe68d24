package via

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weir/dataplane/packet"
	"weir/lab/netlab"
)

// cpu returns the CPU time of the calling thread or of the process.
func cpu(b testing.TB, who int) time.Duration {
	b.Helper()
	var usage unix.Rusage
	if err := unix.Getrusage(who, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkPump measures what a packet costs from the device to the NIC, the CPU
// time of the thread that moves it, at the rate of 5,000 TCP checks a second.
func BenchmarkPump(b *testing.B) {
	const rate = 15000
	w := newWorld(b)
	n := w.openBare()
	n.SetWays(map[string]Way{"b1": w.dsr(w.backends[0])})
	spent := make(chan time.Duration)
	ctx, cancel := context.WithCancel(b.Context())
	go func() {
		runtime.LockOSThread()
		before := cpu(b, unix.RUSAGE_THREAD)
		if err := n.Run(ctx); err != nil {
			b.Error(err)
		}
		spent <- cpu(b, unix.RUSAGE_THREAD) - before
	}()
	var c io.WriteCloser
	w.must(w.box.Do(func() (err error) {
		c, err = n.DialContext(ctx, "udp", netip.AddrPortFrom(vip4, 9), "b1")
		return err
	}))
	payload := make([]byte, 64)
	started := time.Now()
	for i := 0; b.Loop(); i++ {
		if ahead := time.Duration(i)*time.Second/rate - time.Since(started); ahead > 0 {
			time.Sleep(ahead)
		}
		_, _ = c.Write(payload) // refused, the backend says
	}
	took := time.Since(started)
	cancel()
	total := <-spent
	s := n.Stats()
	b.ReportMetric(float64(total.Nanoseconds())/float64(s.Sent), "cpu-ns/packet")
	b.ReportMetric(100*total.Seconds()/took.Seconds(), "%core")
	b.ReportMetric(float64(s.Sent)/took.Seconds(), "packets/s")
}

// BenchmarkChecks measures the CPU time of a process that makes TCP connections at
// 5,000 a second, by a way and by the kernel's routes. It runs in the box, so that
// no servers are counted, and no threads that are tied to a namespace.
func BenchmarkChecks(b *testing.B) {
	for _, kind := range []string{"way", "kernel"} {
		b.Run(kind, func(b *testing.B) {
			w := newWorld(b)
			cmd := exec.Command(os.Args[0], "-test.run=^TestCheckProcess$", "-test.v")
			cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %d", checkProcess, kind, net.HardwareAddr(w.backends[0].mac[:]), b.N))
			p, err := w.box.Start(cmd)
			w.must(err)
			if err := p.Wait(); err != nil {
				b.Fatal(err, p.Output())
			}
			var spent, took float64
			_, out, _ := strings.Cut(p.Output(), "seconds: ")
			if _, err := fmt.Sscan(out, &spent, &took); err != nil {
				b.Fatal(err, p.Output())
			}
			b.ReportMetric(1e9*spent/float64(b.N), "cpu-ns/check")
			b.ReportMetric(100*spent/took, "%core")
			b.ReportMetric(float64(b.N)/took, "checks/s")
		})
	}
}

const checkProcess = "WEIR_VIA_CHECK_PROCESS"

// TestCheckProcess is no test but the process of BenchmarkChecks.
func TestCheckProcess(t *testing.T) {
	const rate = 5000
	order := os.Getenv(checkProcess)
	if order == "" {
		t.Skip("for BenchmarkChecks alone")
	}
	var kind, mac string
	var checks int
	_, err := fmt.Sscan(order, &kind, &mac, &checks)
	w := &world{t: t, link: netlab.Link{MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}}}
	w.must(err)
	to, err := net.ParseMAC(mac)
	w.must(err)
	n, err := Open(discard())
	w.must(err)
	defer n.Close()
	go n.Run(t.Context())
	way, target := "b1", netip.AddrPortFrom(vip4, port)
	if kind == "kernel" {
		way, target = "", netip.MustParseAddrPort("10.0.0.11:80")
	}
	n.SetWays(map[string]Way{"b1": w.dsr(&backend{mac: packet.MAC(to)})})
	var all sync.WaitGroup
	before, started := cpu(t, unix.RUSAGE_SELF), time.Now()
	for i := range checks {
		if ahead := time.Duration(i)*time.Second/rate - time.Since(started); ahead > 0 {
			time.Sleep(ahead)
		}
		all.Go(func() {
			c, err := n.DialContext(t.Context(), "tcp", target, way)
			if err != nil {
				t.Error(err)
				return
			}
			_ = c.Close()
		})
	}
	all.Wait()
	fmt.Println("seconds:", (cpu(t, unix.RUSAGE_SELF) - before).Seconds(), time.Since(started).Seconds())
}
