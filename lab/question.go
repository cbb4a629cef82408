package main

import (
	"net/http"
	"strconv"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// question is what the next power-on of a VM asks. Its task stays running
// until somebody answers.
type question struct {
	id, message, text string
	choices           []string
	answer            chan int // one answer; closed by nobody
}

// serveQuestion makes the next power-on ask. Choice 0 gives the power-on up.
func (st *vmState) serveQuestion(r *http.Request) (any, error) {
	in := struct {
		Message string   `json:"message_id"`
		Text    string   `json:"text"`
		Choices []string `json:"choices"`
	}{
		Message: "msg.uuid.altered",
		Text:    "This virtual machine might have been moved or copied.",
		Choices: []string{"Cancel", "I Moved It", "I Copied It"},
	}
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	if len(in.Choices) < 2 {
		return nil, failed(400, "a question has at least two choices, the first of which gives up")
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	st.questions++
	st.question = &question{
		id: strconv.Itoa(st.questions), message: in.Message, text: in.Text, choices: in.Choices, answer: make(chan int, 1),
	}
	return reply{"ok": true, "id": st.question.id}, nil
}

// ask shows the question and waits for its answer, without the VM's lock.
func (st *vmState) ask(ctx *simulator.Context) types.BaseMethodFault {
	st.mu.Lock()
	q := st.question
	st.mu.Unlock()
	if q == nil {
		return nil
	}
	show := func(shown *types.VirtualMachineQuestionInfo) {
		unlock := ctx.Map.AcquireLock(ctx, st.ref)
		defer unlock()
		if vm, ok := ctx.Map.Get(st.ref).(*simulator.VirtualMachine); ok {
			var val any
			if shown != nil {
				val = shown
			}
			ctx.Update(vm, []types.PropertyChange{{Name: "runtime.question", Val: val}})
		}
	}
	show(q.info())
	chosen := <-q.answer
	st.mu.Lock()
	st.question = nil
	st.mu.Unlock()
	show(nil)
	if chosen == 0 {
		return &types.GenericVmConfigFault{Reason: "The operation was given up: " + q.text}
	}
	return nil
}

func (q *question) info() *types.VirtualMachineQuestionInfo {
	info := &types.VirtualMachineQuestionInfo{
		Id: q.id, Text: q.message + ":" + q.text,
		Choice:  types.ChoiceOption{DefaultIndex: 1},
		Message: []types.VirtualMachineMessage{{Id: q.message, Text: q.text}},
	}
	for n, label := range q.choices {
		info.Choice.ChoiceInfo = append(info.Choice.ChoiceInfo, &types.ElementDescription{
			Key: strconv.Itoa(n), Description: types.Description{Label: label, Summary: label}})
	}
	return info
}

// AnswerVM answers the open question, which its id names; a second answer
// comes too late.
func (e *vmExtension) AnswerVM(_ *simulator.Context, req *types.AnswerVM) soap.HasFault {
	body := new(methods.AnswerVMBody)
	if fault := e.answer(req); fault != nil {
		body.Fault_ = simulator.Fault("", fault)
		return body
	}
	body.Res = &types.AnswerVMResponse{}
	return body
}

func (e *vmExtension) answer(req *types.AnswerVM) types.BaseMethodFault {
	st := e.site.state(e.Self)
	if st == nil {
		return &types.ManagedObjectNotFound{Obj: e.Self}
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	q := st.question
	if q == nil || q.id != req.QuestionId {
		return &types.ConcurrentAccess{}
	}
	n, err := strconv.Atoi(req.AnswerChoice)
	if err != nil || n < 0 || n >= len(q.choices) {
		return invalid("answerChoice")
	}
	select {
	case q.answer <- n:
		return nil
	default:
		return &types.ConcurrentAccess{}
	}
}
